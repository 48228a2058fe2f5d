#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace edgewise {
namespace {

double BaseFrequency(const RopeSpec& rope, size_t pair) {
  return std::pow(static_cast<double>(rope.base),
                  -2.0 * static_cast<double>(pair) / static_cast<double>(rope.rotary_dim));
}

// The (fractional) pair whose angle makes `turns` turns within the original context.
double PairOfTurns(const RopeSpec& rope, double turns) {
  const double length = static_cast<double>(rope.original_context);
  return static_cast<double>(rope.rotary_dim) *
         std::log(length / (turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(static_cast<double>(rope.base)));
}

// YaRN: pairs below `low` keep their frequency, pairs above `high` are divided by factor.
void ApplyYarn(const RopeSpec& rope, std::vector<double>* frequencies) {
  const double last = static_cast<double>(rope.rotary_dim) - 1.0;
  const double low = std::max(std::floor(PairOfTurns(rope, rope.beta_fast)), 0.0);
  const double high = std::min(std::ceil(PairOfTurns(rope, rope.beta_slow)), last);
  const double width = std::max(high - low, 0.001);
  for (size_t i = 0; i < frequencies->size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / width, 0.0, 1.0);
    double& frequency = (*frequencies)[i];
    frequency = frequency / rope.factor * ramp + frequency * (1.0 - ramp);
  }
}

void Divide(std::span<const float> factors, std::vector<double>* frequencies) {
  for (size_t i = 0; i < factors.size(); ++i) (*frequencies)[i] /= factors[i];
}

}  // namespace

std::vector<float> Llama3FrequencyFactors(const RopeSpec& rope) {
  const double context = rope.original_context;
  std::vector<float> factors(rope.rotary_dim / 2);
  for (size_t i = 0; i < factors.size(); ++i) {
    const double turns = context * BaseFrequency(rope, i) / (2.0 * std::numbers::pi);
    if (turns > rope.high_freq_factor) {
      factors[i] = 1.0f;
    } else if (turns < rope.low_freq_factor) {
      factors[i] = rope.factor;
    } else {
      const double smooth = (turns - rope.low_freq_factor) /
                            (static_cast<double>(rope.high_freq_factor) - rope.low_freq_factor);
      factors[i] = static_cast<float>(1.0 / ((1.0 - smooth) / rope.factor + smooth));
    }
  }
  return factors;
}

std::vector<double> RopeFrequencies(const RopeSpec& rope, bool long_context) {
  std::vector<double> frequencies(rope.rotary_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] = BaseFrequency(rope, i);
  if (!rope.frequency_factors.empty()) {
    Divide(rope.frequency_factors, &frequencies);
  } else if (rope.scaling == RopeScalingKind::kLlama3) {
    Divide(Llama3FrequencyFactors(rope), &frequencies);
  }
  switch (rope.scaling) {
    case RopeScalingKind::kNone:
    case RopeScalingKind::kLlama3:
      break;
    case RopeScalingKind::kLinear:
      for (double& frequency : frequencies) frequency /= rope.factor;
      break;
    case RopeScalingKind::kYarn:
      ApplyYarn(rope, &frequencies);
      break;
    case RopeScalingKind::kLongRope:
      Divide(long_context ? rope.long_factors : rope.short_factors, &frequencies);
      break;
  }
  return frequencies;
}

RopeSpec SlidingRope(const ModelSpec& spec) {
  if (spec.local_rope_base == 0) return spec.rope;
  RopeSpec local;
  local.kind = spec.rope.kind;
  local.base = spec.local_rope_base;
  local.rotary_dim = spec.rope.rotary_dim;
  return local;
}

double YarnAttentionFactor(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

void RopeAngles(const RopeSpec& rope, std::span<const double> frequencies, uint32_t position,
                float* cos, float* sin) {
  const double scale = rope.attention_factor;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double angle = static_cast<double>(position) * frequencies[i];
    cos[i] = static_cast<float>(std::cos(angle) * scale);
    sin[i] = static_cast<float>(std::sin(angle) * scale);
  }
}

}  // namespace edgewise
