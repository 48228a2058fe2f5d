// The F32 matrix product of the kernels, for compression on plain matrices.
#pragma once

#include <cstddef>

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

}  // namespace edgewise
