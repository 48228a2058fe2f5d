#include "compress/prune/reconstruct.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/strings.h"
#include "compress/cholesky.h"
#include "compress/matrix.h"

namespace edgewise {
namespace {

constexpr double kDamping = 0.01;  // of the mean of the diagonal, as GPTQ's
constexpr size_t kRows = 32;       // that one piece of work takes together

}  // namespace

struct Reconstruction::Factor {
  DoubleMatrix lower;  // (kept, kept)
};

Result<Reconstruction> Reconstruction::Create(std::span<const float> h, size_t n,
                                              std::vector<uint32_t> kept, ThreadPool* pool) {
  Reconstruction result;
  result.n_ = n;
  result.kept_ = std::move(kept);
  const size_t k = result.kept_.size();
  double trace = 0;
  for (const uint32_t c : result.kept_) {
    trace += h[c * n + c];
    const float* row = h.data() + c * n;
    result.h_kept_.insert(result.h_kept_.end(), row, row + n);
  }
  const double damping = trace > 0 ? kDamping * trace / static_cast<double>(k) : 1;
  auto factor = std::make_shared<Factor>();
  DoubleMatrix& lower = factor->lower;
  lower.resize(static_cast<Eigen::Index>(k), static_cast<Eigen::Index>(k));
  for (size_t i = 0; i < k; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      lower(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(j)) =
          static_cast<double>(result.h_kept_[i * n + result.kept_[j]]) + (i == j ? damping : 0);
    }
  }
  if (!std::isfinite(trace) || !Factorize(&lower, pool)) {
    return MakeError(Code::kBadData,
                     "the second moments of the activations are not finite or not positive "
                     "definite: calibrate with more or other text");
  }
  result.factor_ = std::move(factor);
  return result;
}

// Q = values + (W - values) H[:, kept] (H[kept, kept] + damping I)^-1.
void Reconstruction::Run(std::span<const float> w, ThreadPool* pool,
                         std::span<float> values) const {
  const size_t rows = w.size() / n_, k = kept_.size();
  pool->ParallelFor((rows + kRows - 1) / kRows, 1, [&](size_t begin, size_t end, int) {
    std::vector<float> lost(kRows * n_), products(kRows * k);
    for (size_t chunk = begin; chunk < end; ++chunk) {
      const size_t first = chunk * kRows, count = std::min(kRows, rows - first);
      const float* before = w.data() + first * n_;
      float* after = values.data() + first * n_;
      for (size_t i = 0; i < count * n_; ++i) lost[i] = before[i] - after[i];
      MultiplyTransposed(h_kept_.data(), n_, k, lost.data(), n_, count, n_, products.data(), k);
      DoubleMatrix step =
          Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
              products.data(), static_cast<Eigen::Index>(count), static_cast<Eigen::Index>(k))
              .cast<double>();
      const auto lower = factor_->lower.triangularView<Eigen::Lower>();
      lower.transpose().solveInPlace<Eigen::OnTheRight>(step);
      lower.solveInPlace<Eigen::OnTheRight>(step);
      for (size_t r = 0; r < count; ++r) {
        for (size_t i = 0; i < k; ++i) {
          after[r * n_ + kept_[i]] +=
              static_cast<float>(step(static_cast<Eigen::Index>(r), static_cast<Eigen::Index>(i)));
        }
      }
    }
  });
}

}  // namespace edgewise
