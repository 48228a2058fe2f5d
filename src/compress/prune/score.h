// Scores of weights: the lower, the less is lost by pruning the weight.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "calibrate/statistics.h"

namespace edgewise {

enum class ScoreMethod : uint8_t {
  kMagnitude,  // |W|
  kRandom,     // uniform, the baseline of baselines
  kWanda,      // |W_ij| |X_j| (Sun et al. 2023)
  // (|W_ij| / sum of column j + |W_ij| / sum of row i) |X_j|^0.5, sums of magnitudes: relative
  // importance and activations (RIA, Zhang et al. 2024).
  kRia,
};

// True for the methods that need column norms.
bool NeedsNorms(ScoreMethod method);

// |X_j|, the L2 norm of each input column over all tokens: (columns).
std::vector<float> ColumnNorms(const ColumnMoments& moments);

// Returns a score >= 0 for each weight of `w` (rows, columns). `norms` (columns) for the methods
// that need them, `seed` for kRandom; the same seed gives the same scores. Errors: kInvalidArgument
// (norms of other columns); kBadData (NaN or infinity in w, or in a score).
Result<std::vector<float>> Scores(ScoreMethod method, std::span<const float> w, size_t columns,
                                  std::span<const float> norms, uint64_t seed);

}  // namespace edgewise
