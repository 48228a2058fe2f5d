// Reconstruction: the weights of a matrix that has lost some of its input columns, so that what
// is left gives the output that all of them gave.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"

namespace edgewise {

// The least squares problem of all matrices that read one input, of which the columns `kept` stay.
// Contains the bias compensation of FLAP, without a bias: the mean of a lost column is predicted
// from those kept.
class Reconstruction {
 public:
  // `h` (n, n) are the second moments of the input; `kept` rises. The kept part is damped by a
  // hundredth of the mean of its diagonal. Errors: kBadData (not finite, not positive definite).
  static Result<Reconstruction> Create(std::span<const float> h, size_t n,
                                       std::vector<uint32_t> kept, ThreadPool* pool);
  // Moves the kept columns of `values` (rows, n), which are 0 elsewhere, to the least
  // tr((W - Q) H (W - Q)^T) + damping |Q - values|^2 for `w` (rows, n); so columns that no input
  // reaches stay as they are. Does not depend on the number of threads.
  void Run(std::span<const float> w, ThreadPool* pool, std::span<float> values) const;

 private:
  size_t n_ = 0;
  std::vector<uint32_t> kept_;
  std::vector<float> h_kept_;  // (kept, n): the rows of H that stay
  struct Factor;
  std::shared_ptr<const Factor> factor_;  // of the kept rows and columns of H
};

}  // namespace edgewise
