#include "calibrate/statistics.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/kernels.h"

namespace edgewise {
namespace {

float* Floats(Tensor& tensor) { return reinterpret_cast<float*>(tensor.mutable_data()); }

// Puts rows into columns of a panel from `at` on.
void Transpose(const float* rows, size_t n, size_t stride, size_t columns, size_t at, float* panel,
               ThreadPool* pool) {
  pool->ParallelFor(columns, 256, [&](size_t begin, size_t end, int) {
    for (size_t i = 0; i < n; ++i) {
      const float* row = rows + i * stride;
      for (size_t c = begin; c < end; ++c) panel[c * ProductSum::kPanel + at + i] = row[c];
    }
  });
}

}  // namespace

void ColumnMoments::Add(const float* rows, size_t n, size_t stride) {
  for (size_t i = 0; i < n; ++i) {
    const float* row = rows + i * stride;
    for (size_t c = 0; c < columns(); ++c) {
      const float magnitude = std::fabs(row[c]);
      sum[c] += row[c];
      sum_squares[c] += static_cast<double>(magnitude) * magnitude;
      sum_abs[c] += magnitude;
      max_abs[c] = std::max(max_abs[c], magnitude);
    }
  }
  tokens += n;
}

void ColumnMoments::Merge(const ColumnMoments& other) {
  EW_CHECK(columns() == other.columns());
  if (other.sum.empty()) sum.clear();
  for (size_t c = 0; c < sum.size(); ++c) sum[c] += other.sum[c];
  for (size_t c = 0; c < columns(); ++c) {
    sum_squares[c] += other.sum_squares[c];
    sum_abs[c] += other.sum_abs[c];
    max_abs[c] = std::max(max_abs[c], other.max_abs[c]);
  }
  tokens += other.tokens;
}

Result<ProductSum> ProductSum::Create(size_t columns, ThreadPool* pool) {
  ProductSum sum;
  sum.pool_ = pool;
  sum.columns_ = columns;
  EW_TRY(sum.sum_, Tensor::Allocate(DType::kF32, Shape{columns, columns}));
  EW_TRY(sum.panel_, Tensor::Allocate(DType::kF32, Shape{columns, kPanel}));
  return sum;
}

Result<ProductSum> ProductSum::CreateCross(size_t columns, ThreadPool* pool) {
  EW_TRY(ProductSum sum, Create(columns, pool));
  EW_TRY(sum.left_, Tensor::Allocate(DType::kF32, Shape{columns, kPanel}));
  return sum;
}

void ProductSum::AddCross(const float* x, size_t x_stride, const float* z, size_t z_stride,
                          size_t n) {
  EW_CHECK(cross());
  while (n > 0) {
    const size_t part = std::min(n, kPanel - waiting_);
    Transpose(x, part, x_stride, columns_, waiting_, Floats(left_), pool_);
    Transpose(z, part, z_stride, columns_, waiting_, Floats(panel_), pool_);
    x += part * x_stride;
    z += part * z_stride;
    n -= part;
    waiting_ += part;
    if (waiting_ == kPanel) Flush();
  }
}

void ProductSum::Add(const float* rows, size_t n, size_t stride) {
  EW_CHECK(!cross());
  while (n > 0) {
    const size_t part = std::min(n, kPanel - waiting_);
    Transpose(rows, part, stride, columns_, waiting_, Floats(panel_), pool_);
    rows += part * stride;
    n -= part;
    waiting_ += part;
    if (waiting_ == kPanel) Flush();
  }
}

// Of x x^T only the lower triangle is computed.
void ProductSum::Flush() {
  if (waiting_ == 0) return;
  const auto run = kernels::Active().linear[static_cast<size_t>(DType::kF32)].run;
  const float* panel = Floats(panel_);
  const float* left = cross() ? Floats(left_) : panel;
  float* sum = Floats(sum_);
  std::vector<float> scratch(static_cast<size_t>(pool_->size()) * kTile * columns_);
  const size_t tiles = (columns_ + kTile - 1) / kTile;
  pool_->ParallelFor(tiles, 1, [&](size_t begin, size_t end, int thread) {
    float* products = scratch.data() + static_cast<size_t>(thread) * kTile * columns_;
    for (size_t at = begin; at < end; ++at) {
      // The last tiles are the longest: they come first.
      const size_t row = (tiles - 1 - at) * kTile;
      const size_t n = std::min(kTile, columns_ - row);
      kernels::LinearArgs args;
      args.w = panel;
      args.w_stride = kPanel * sizeof(float);
      args.rows = cross() ? columns_ : row + n;
      args.columns = waiting_;
      args.x = left + row * kPanel;
      args.x_stride = kPanel * sizeof(float);
      args.n = n;
      args.y = products;
      args.y_stride = columns_;
      run(args);
      for (size_t i = 0; i < n; ++i) {
        float* to = sum + (row + i) * columns_;
        for (size_t c = 0; c < args.rows; ++c) to[c] += products[i * columns_ + c];
      }
    }
  });
  waiting_ = 0;
}

float* ProductSum::Finish() {
  Flush();
  float* sum = Floats(sum_);
  for (size_t i = 0; !cross() && i < columns_; ++i) {
    for (size_t j = i + 1; j < columns_; ++j) sum[i * columns_ + j] = sum[j * columns_ + i];
  }
  return sum;
}

}  // namespace edgewise
