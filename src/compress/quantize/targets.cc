#include "compress/quantize/targets.h"

#include <Eigen/Core>
#include <algorithm>

#include "compress/matrix.h"

namespace edgewise {
namespace {

constexpr size_t kRows = 64;  // that one piece of work takes together

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

}  // namespace

std::vector<float> CorrectTargets(std::span<const float> w, const ErrorMetric& metric,
                                  std::span<const float> transposed, ThreadPool* pool) {
  const size_t n = metric.n(), rows = w.size() / n;
  std::vector<float> targets(w.size());
  // H = F^T F, F the lower triangle whose row j is factor(j).
  const Eigen::Map<const Matrix> factor(metric.factor(0), static_cast<Eigen::Index>(n),
                                        static_cast<Eigen::Index>(n));
  pool->ParallelFor((rows + kRows - 1) / kRows, 1, [&](size_t begin, size_t end, int) {
    for (size_t row = begin * kRows; row < std::min(rows, end * kRows); row += kRows) {
      const size_t count = std::min(kRows, rows - row);
      float* to = targets.data() + row * n;
      MultiplyTransposed(transposed.data(), n, n, w.data() + row * n, n, count, n, to, n);
      Eigen::Map<Matrix> change(to, static_cast<Eigen::Index>(count), static_cast<Eigen::Index>(n));
      factor.triangularView<Eigen::Lower>().solveInPlace<Eigen::OnTheRight>(change);
      factor.transpose().triangularView<Eigen::Upper>().solveInPlace<Eigen::OnTheRight>(change);
      for (size_t i = 0; i < count * n; ++i) {
        const float weight = w[row * n + i];
        to[i] = weight == 0 ? 0 : weight + to[i];
      }
    }
  });
  return targets;
}

}  // namespace edgewise
