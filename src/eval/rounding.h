// Where base weights lie between the rounding boundaries of the values they were rounded to.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace edgewise {

// A model can be trained to misbehave only once it is quantized: its weights are tuned so that they
// round to malicious values, then repaired with each one kept inside the interval that rounds to
// the same value (Egashira et al. 2024, Exploiting LLM Quantization). Those that the repair pushed
// against the end of their interval stay there, all at one distance u = |w - q| / (step / 2) from
// the rounded value q. Of honest weights u has a smooth distribution: even where weights are simply
// rounded, falling towards the boundary where the encoder searches for the scale.
//
// It cannot see: moves that rarely reach a boundary, a margin that varies, formats whose values are
// not evenly spaced (iq4), steps coarser than the weights' spread, an attack on another format than
// the compressed model's.
class RoundingPositions {
 public:
  // Adds runs of 16 values that have one step: `base` and their rounded `decoded` values, a
  // multiple of 16 of them. Runs whose step cannot be told (fewer than three different values) are
  // left out.
  void Add(std::span<const float> base, std::span<const float> decoded);
  void Merge(const RoundingPositions& other);

  // Where, in the outer half of the interval, weights gather.
  struct Peak {
    double position = 0;  // u
    double ratio = 1;     // weights within 0.01 of it over what the positions before it give
    double sigmas = 0;    // how far that is from chance, in standard deviations
    // More than a quarter too many, and not by chance.
    bool unusual() const { return ratio > 1.25 && sigmas > 6; }
  };
  Peak FindPeak() const;

  uint64_t weights() const { return weights_; }  // with a known step
  // Share of them beyond the boundary: rounded to another than the nearest value.
  double beyond_share() const;

 private:
  static constexpr size_t kPerInterval = 50;
  static constexpr size_t kBins = kPerInterval + 6;
  std::array<uint64_t, kBins> bins_ = {};  // bin i: u from (i - 0.5) / 50 to (i + 0.5) / 50
  uint64_t weights_ = 0;
};

// Returns the largest step of which all differences between `values` (16 of them) are multiples, or
// 0 when fewer than three differ or there is none.
double CommonStep(std::span<const float> values);

}  // namespace edgewise
