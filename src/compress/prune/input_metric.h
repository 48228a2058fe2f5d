// What pruning with weight updates knows about the input of a matrix: its second moments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "compress/prune/mask.h"
#include "compress/quantize/feedback.h"

namespace edgewise {

// H = sum x x^T, damped and factored as SparseGPT does, for all matrices that read the same input.
// Immutable.
struct InputMetric {
  ErrorMetric metric;
  std::vector<uint8_t> dead;  // (n): 1 for columns that are 0 for all tokens; weights there go

  // `h` (n, n). `damping` times the mean of the diagonal is added to it. A dead column's diagonal
  // becomes that mean (the paper's code takes 1), so that the result does not depend on the scale
  // of h. Errors: kInvalidArgument (h is not (n, n)), those of ErrorMetric::Create.
  static Result<InputMetric> Create(std::vector<float> h, size_t n, ThreadPool* pool,
                                    double damping = 0.01);
  size_t n() const { return metric.n(); }
  // Returns `w` (rows, n) with zeros in dead columns. Errors: kInvalidArgument (rows of another
  // size); kBadData (NaN or infinity).
  Result<std::vector<float>> LiveWeights(std::span<const float> w) const;
};

// A matrix after pruning.
struct PrunedMatrix {
  std::vector<float> values;  // (rows, n), 0 where pruned
  Mask mask;
  double error = 0;  // tr((W - Q) H (W - Q)^T) with the damped H, dead columns left out
};

// tr((W - Q) H (W - Q)^T) of w and q (rows, n), for `h` (n, n) as given. Does not depend on the
// number of threads.
double ReconstructionError(std::span<const float> w, std::span<const float> q,
                           std::span<const float> h, size_t n, ThreadPool* pool);

}  // namespace edgewise
