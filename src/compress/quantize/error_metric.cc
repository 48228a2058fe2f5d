#include <algorithm>
#include <cmath>
#include <utility>

#include "base/strings.h"
#include "compress/cholesky.h"
#include "compress/quantize/feedback.h"

namespace edgewise {
namespace {

constexpr int kMaxRetries = 6;

}  // namespace

uint64_t MetricPeakBytes(size_t n) {
  // h and the factor in floats, and the lower triangle in doubles; nothing touches the upper one.
  return n * n * (2 * sizeof(float) + sizeof(double) / 2);
}

Result<ErrorMetric> ErrorMetric::Create(std::vector<float> h, size_t n, double damping,
                                        ThreadPool* pool) {
  ErrorMetric metric;
  metric.n_ = n;
  double trace = 0;
  for (size_t j = 0; j < n; ++j) trace += h[j * n + j];
  if (!std::isfinite(trace)) {
    return MakeError(Code::kBadData, "the activations of calibration are not finite");
  }
  const double mean = trace > 0 ? trace / static_cast<double>(n) : 1;
  // R of H = R R^T is L of the reversed matrix, reversed: row n-1-j of L holds R_ij, last i first.
  DoubleMatrix reversed(n, n);
  for (int attempt = 0;; ++attempt, damping *= 10) {
    for (size_t i = 0; i < n; ++i) {
      const float* row = h.data() + (n - 1 - i) * n;
      for (size_t j = 0; j <= i; ++j) {
        reversed(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(j)) = row[n - 1 - j];
      }
      reversed(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(i)) += damping * mean;
    }
    if (Factorize(&reversed, pool)) break;
    if (attempt == kMaxRetries) {
      return MakeError(Code::kBadData,
                       "the second moments of the activations are not positive definite, even with "
                       "%g of their mean added: calibrate with more or other text",
                       damping);
    }
  }
  metric.h_ = std::move(h);
  for (size_t j = 0; j < n; ++j) metric.h_[j * n + j] += static_cast<float>(damping * mean);
  metric.factor_.assign(n * n, 0.0f);
  // L's columns are R's columns: L[a][b] = R[n-1-a][n-1-b] transposed in the reversal.
  for (size_t j = 0; j < n; ++j) {
    for (size_t i = 0; i <= j; ++i) {
      metric.factor_[j * n + i] = static_cast<float>(
          reversed(static_cast<Eigen::Index>(n - 1 - i), static_cast<Eigen::Index>(n - 1 - j)));
    }
  }
  return metric;
}

}  // namespace edgewise
