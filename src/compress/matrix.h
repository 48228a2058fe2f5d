// Plain float matrices: the product of the kernels, and a part.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "kernels/kernels.h"

namespace edgewise {

// y (n, rows) = x (n, columns) * w (rows, columns)^T in float32, strides in floats. Each element's
// sum has an order of its own, however the work is split.
inline void MultiplyTransposed(const float* w, size_t w_stride, size_t rows, const float* x,
                               size_t x_stride, size_t n, size_t columns, float* y,
                               size_t y_stride) {
  kernels::LinearArgs args;
  args.w = w;
  args.w_stride = w_stride * sizeof(float);
  args.rows = rows;
  args.columns = columns;
  args.x = x;
  args.x_stride = x_stride * sizeof(float);
  args.n = n;
  args.y = y;
  args.y_stride = y_stride;
  kernels::Active().linear[static_cast<size_t>(DType::kF32)].run(args);
}

// The first `rows` and `columns` of a matrix with rows `stride` floats apart.
inline std::vector<float> LeadingBlock(std::span<const float> from, size_t stride, size_t rows,
                                       size_t columns) {
  std::vector<float> block(rows * columns);
  for (size_t i = 0; i < rows; ++i) {
    std::copy_n(from.data() + i * stride, columns, &block[i * columns]);
  }
  return block;
}

}  // namespace edgewise
