// Error feedback: quantizes the rows of a matrix so that the layer's output changes least, not the
// weights themselves (GPTQ, Frantar et al. 2023), onto the grid of any block format.
//
// For inputs x with H = sum x x^T and a row w, the output error of the quantized row q is
// (w - q) H (w - q)^T = |(w - q) R|^2 with H = R R^T, R upper triangular. Column j of (w - q) R is
// R_jj (w'_j - q_j) with w'_j = w_j + sum_{i<j} (w_i - q_i) R_ij / R_jj: each column makes up for
// the errors of those before it. That is GPTQ's recursion without the inverse of H (it is Babai's
// nearest plane, Chen et al. 2025). Afterwards coordinate descent in the same measure moves single
// integers, group scales and block scales as long as the error falls (in the manner of CDQuant,
// Nair and Suggala 2024).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "quant/dtype.h"

namespace edgewise {

// H and its factor, both in float32; the factorization is in double precision. Immutable.
class ErrorMetric {
 public:
  // `h` (n, n), symmetric and positive semidefinite; `damping` times the mean of its diagonal is
  // added to the diagonal, ten times as much again as long as H is not positive definite in
  // double precision. Errors: kBadData (not finite, or hopeless).
  static Result<ErrorMetric> Create(std::vector<float> h, size_t n, double damping,
                                    ThreadPool* pool);
  size_t n() const { return n_; }
  // Row j of H (n).
  const float* h(size_t j) const { return h_.data() + j * n_; }
  // R_ij for i <= j: row j of the transposed factor.
  const float* factor(size_t j) const { return factor_.data() + j * n_; }

 private:
  size_t n_ = 0;
  std::vector<float> h_, factor_;
};

// Of ErrorMetric::Create at its peak, `h` included.
uint64_t MetricPeakBytes(size_t n);

// Rows that one piece of work takes together.
inline constexpr size_t kFeedbackRows = 32;

struct FeedbackOptions {
  int fits = 2;      // of the scales of a block, each on the weights as feedback left them
  int descents = 3;  // rounds of coordinate descent over a row, at most
};

// Quantizes `w` (rows, n) as `type`, whose block divides n: `blocks` (rows, RowBytes(n)). Returns
// sum over rows of (w - q) H (w - q)^T. The bytes do not depend on the number of threads.
double QuantizeWithFeedback(const float* w, size_t rows, const ErrorMetric& metric, DType type,
                            const FeedbackOptions& options, ThreadPool* pool, std::byte* blocks);

// Of QuantizeWithFeedback at its peak with its metric, without the weights and the blocks.
uint64_t FeedbackBytes(size_t n, DType type, int threads);

}  // namespace edgewise
