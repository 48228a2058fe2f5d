// ALPS (Meng et al. 2024): the mask and the values that reconstruct the layer's output best, by
// ADMM with a growing penalty, then conjugate gradients on the mask found.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "compress/prune/input_metric.h"
#include "compress/prune/sparsity.h"

namespace edgewise {

// H of an input with its diagonal scaled to 1, and its eigenvectors: for all matrices that read the
// same input. In memory: three (n, n) matrices in double precision while it is made, two in float32
// after. Immutable.
class SpectralMetric {
 public:
  // Keeps a reference to `input`. Takes O(n^3) on one thread. Errors: kBadData (no eigenvalues are
  // found).
  static Result<SpectralMetric> Create(const InputMetric& input);
  const InputMetric& input() const { return *input_; }
  size_t n() const { return scale_.size(); }
  // Square roots of the diagonal of the damped H (n).
  const std::vector<float>& scale() const { return scale_; }
  // The damped H, row and column j divided by scale j (n, n).
  const float* h() const { return h_.data(); }
  // Writes the inverse of h + rho I (n, n).
  void Inverse(double rho, ThreadPool* pool, std::span<float> inverse) const;

 private:
  const InputMetric* input_ = nullptr;
  std::vector<float> scale_, h_;
  std::vector<float> vectors_;  // (n, n): eigenvector k is column k
  std::vector<double> values_;  // (n)
};

struct AlpsOptions {
  double rho = 0.1;  // the penalty at first, for H of diagonal 1
  int iterations = 300;
  int refit_steps = 10;
};

// Prunes `w` (rows, n): PrunedOf(all of the matrix), or M - N of each group. The error is at most
// that of PruneSparseGpt, whose mask, refitted, is returned where it is the better one. The result
// does not depend on the number of threads. `within` as there. Errors: those of PruneSparseGpt.
Result<PrunedMatrix> PruneAlps(std::span<const float> w, const SpectralMetric& metric,
                               const Sparsity& sparsity, const AlpsOptions& options,
                               ThreadPool* pool, const Mask* within = nullptr);

}  // namespace edgewise
