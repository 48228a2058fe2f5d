// DSnoT (Zhang et al. 2024): swaps pruned for kept weights, without training, until each output is
// expected to be off by little.
#pragma once

#include <cstddef>
#include <span>

#include "base/result.h"
#include "base/thread_pool.h"
#include "compress/prune/mask.h"
#include "compress/prune/sparsity.h"

namespace edgewise {

// What it needs to know of each input column: (columns) each, over all tokens.
struct InputDistribution {
  std::span<const double> mean, variance;
  std::span<const float> norms;  // |X_j|: score.h
};

struct DsnotOptions {
  int cycles = 50;         // swaps in a row, at most
  double threshold = 0.1;  // of a row's expected error, below which it is left alone
  double sequence = 2048;  // tokens over which an expected error is summed
};

// Returns `mask` of `w` (rows, columns) with weights swapped: a pruned one whose return lowers the
// row's expected error sum_pruned w_j E[x_j] most for its variance, for the kept one of lowest
// Wanda score whose loss lowers it too; in N:M `sparsity` for the lowest of the same group. Every
// row keeps as many weights as before, and no row's expected error grows. Does not depend on the
// number of threads. Errors: kInvalidArgument (Mask::CheckShape, Sparsity::CheckColumns, or the
// distribution is of other columns); kBadData (NaN or infinity).
Result<Mask> SwapWeights(std::span<const float> w, const InputDistribution& input, const Mask& mask,
                         const Sparsity& sparsity, const DsnotOptions& options, ThreadPool* pool);

}  // namespace edgewise
