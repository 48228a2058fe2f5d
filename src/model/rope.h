// Rotary position embeddings (Su et al. 2021) and their context extensions: angles per position.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/spec.h"

namespace edgewise {

// Returns the angle per position of each rotated pair, (rotary_dim / 2), all scalings applied.
// `long_context` chooses between the factor lists of kLongRope.
std::vector<double> RopeFrequencies(const RopeSpec& rope, bool long_context);

// Returns the rope of layers that slide: `local_rope_base` without scaling where the model has one.
RopeSpec SlidingRope(const ModelSpec& spec);

// Returns the divisors (rotary_dim / 2) by which Llama 3.1 slows low frequencies: those with fewer
// than low_freq_factor turns within original_context are divided by `factor`, with a ramp up to
// high_freq_factor.
std::vector<float> Llama3FrequencyFactors(const RopeSpec& rope);

// Returns YaRN's default attention factor (Peng et al. 2023): 0.1 mscale ln(factor) + 1.
double YarnAttentionFactor(double factor, double mscale = 1.0);

// Writes cos and sin, (frequencies.size()) each, of one position, times rope.attention_factor.
void RopeAngles(const RopeSpec& rope, std::span<const double> frequencies, uint32_t position,
                float* cos, float* sin);

}  // namespace edgewise
