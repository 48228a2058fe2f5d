#include "compress/prune/refit.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "compress/matrix.h"
#include "kernels/kernels.h"

namespace edgewise {
namespace {

constexpr size_t kRows = 32;          // that one piece of work takes together
constexpr float kConverged = 1e-10f;  // of the squared residual that a row began with

// A few rows of the matrix.
class RowRefit {
 public:
  RowRefit(const float* w, size_t first_row, size_t rows, const ErrorMetric& metric,
           const Mask& mask, float* values)
      : w_(w),
        first_row_(first_row),
        rows_(rows),
        n_(metric.n()),
        metric_(metric),
        mask_(mask),
        values_(values),
        residual_(rows * n_),
        direction_(rows * n_),
        product_(rows * n_) {}

  void Run(int steps);

 private:
  float Precondition(size_t row, float* z) const;
  bool Step(size_t row, float* z, float* size);
  void Multiply() {
    MultiplyTransposed(metric_.h(0), n_, n_, direction_.data(), n_, rows_, n_, product_.data(), n_);
  }

  const float* w_;
  size_t first_row_, rows_, n_;
  const ErrorMetric& metric_;
  const Mask& mask_;
  float* values_;
  std::vector<float> residual_, direction_, product_;  // (rows, n)
};

// z = residual / diagonal of H; returns residual . z.
float RowRefit::Precondition(size_t row, float* z) const {
  const float* residual = residual_.data() + row * n_;
  for (size_t c = 0; c < n_; ++c) z[c] = residual[c] / metric_.h(c)[c];
  return kernels::Active().dot_f32(residual, z, n_);
}

// One step of `row`, whose residual . z was *size. Returns false where there is nothing to gain.
bool RowRefit::Step(size_t row, float* z, float* size) {
  float* direction = direction_.data() + row * n_;
  const float* product = product_.data() + row * n_;
  const float curvature = kernels::Active().dot_f32(direction, product, n_);
  if (!(curvature > 0)) return false;
  const float step = *size / curvature;
  float* residual = residual_.data() + row * n_;
  float* values = values_ + row * n_;
  for (size_t c = 0; c < n_; ++c) {
    values[c] += step * direction[c];
    if (mask_.kept(first_row_ + row, c)) residual[c] -= step * product[c];
  }
  const float before = *size;
  *size = Precondition(row, z);
  const float beta = *size / before;
  for (size_t c = 0; c < n_; ++c) direction[c] = z[c] + beta * direction[c];
  return true;
}

void RowRefit::Run(int steps) {
  for (size_t i = 0; i < rows_ * n_; ++i) direction_[i] = w_[i] - values_[i];
  Multiply();
  std::vector<float> z(n_), sizes(rows_), goals(rows_);
  for (size_t row = 0; row < rows_; ++row) {
    float* residual = residual_.data() + row * n_;
    for (size_t c = 0; c < n_; ++c) {
      residual[c] = mask_.kept(first_row_ + row, c) ? product_[row * n_ + c] : 0;
    }
    sizes[row] = Precondition(row, z.data());
    goals[row] = kConverged * sizes[row];
    std::copy(z.begin(), z.end(), direction_.begin() + static_cast<std::ptrdiff_t>(row * n_));
  }
  bool moved = true;
  for (int step = 0; step < steps && moved; ++step) {
    moved = false;
    Multiply();
    for (size_t row = 0; row < rows_; ++row) {
      if (sizes[row] > goals[row] && Step(row, z.data(), &sizes[row])) moved = true;
    }
  }
}

}  // namespace

void RefitKept(std::span<const float> w, const ErrorMetric& metric, const Mask& mask, int steps,
               ThreadPool* pool, std::span<float> values) {
  const size_t n = metric.n(), rows = w.size() / n;
  EW_CHECK(values.size() == w.size() && mask.rows() == rows && mask.columns() == n);
  pool->ParallelFor((rows + kRows - 1) / kRows, 1, [&](size_t begin, size_t end, int) {
    for (size_t chunk = begin; chunk < end; ++chunk) {
      const size_t first = chunk * kRows;
      RowRefit(w.data() + first * n, first, std::min(kRows, rows - first), metric, mask,
               values.data() + first * n)
          .Run(steps);
    }
  });
}

}  // namespace edgewise
