// Products of F32, F16 and BF16 weights with float activations, written once over the float vectors
// S (see vector_ops.h).
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/skeleton/vector_ops.h"

namespace edgewise::kernels {
namespace {

template <class S>
struct WeightF32 {
  static constexpr size_t kBytes = 4;
  static typename S::V Load(const char* p) { return S::LoadBytes(p); }
};
template <class S>
struct WeightF16 {
  static constexpr size_t kBytes = 2;
  static typename S::V Load(const char* p) { return S::LoadF16(p); }
};
template <class S>
struct WeightBf16 {
  static constexpr size_t kBytes = 2;
  static typename S::V Load(const char* p) { return S::LoadBf16(p); }
};

// The dots of one weight row with N activation rows, each in four chains of additions, whatever N
// is.
template <class S, class Weight, size_t N>
inline void DotRow(const char* w, const float* const* x, size_t columns, float* const* y) {
  constexpr size_t W = S::kWidth;
  typename S::V sum[N][4];
  for (size_t t = 0; t < N; ++t) {
    for (size_t u = 0; u < 4; ++u) sum[t][u] = S::Zero();
  }
  size_t c = 0;
  for (; c + 4 * W <= columns; c += 4 * W) {
    for (size_t u = 0; u < 4; ++u) {
      const typename S::V v = Weight::Load(w + (c + u * W) * Weight::kBytes);
      for (size_t t = 0; t < N; ++t) sum[t][u] = S::Fma(v, S::Load(x[t] + c + u * W), sum[t][u]);
    }
  }
  for (; c + W <= columns; c += W) {
    const typename S::V v = Weight::Load(w + c * Weight::kBytes);
    for (size_t t = 0; t < N; ++t) sum[t][0] = S::Fma(v, S::Load(x[t] + c), sum[t][0]);
  }
  if (c < columns) {
    char rest[W * Weight::kBytes] = {};
    memcpy(rest, w + c * Weight::kBytes, (columns - c) * Weight::kBytes);
    const typename S::V v = Weight::Load(rest);
    for (size_t t = 0; t < N; ++t) {
      sum[t][1] = S::Fma(v, LoadPart<S>(x[t] + c, columns - c), sum[t][1]);
    }
  }
  for (size_t t = 0; t < N; ++t) {
    *y[t] = S::Sum(S::Add(S::Add(sum[t][0], sum[t][1]), S::Add(sum[t][2], sum[t][3])));
  }
}

template <class S, class Weight, size_t N>
inline void FloatRows(const LinearArgs& a, size_t first, size_t end, size_t j) {
  const float* x[N];
  for (size_t t = 0; t < N; ++t) {
    x[t] = reinterpret_cast<const float*>(static_cast<const char*>(a.x) + (j + t) * a.x_stride);
  }
  for (size_t i = first; i < end; ++i) {
    float* y[N];
    for (size_t t = 0; t < N; ++t) y[t] = a.y + (j + t) * a.y_stride + i;
    DotRow<S, Weight, N>(static_cast<const char*>(a.w) + i * a.w_stride, x, a.columns, y);
  }
}

template <class S, template <class> class Weight>
void LinearFloats(const LinearArgs& a) {
  constexpr size_t kWide = S::kTile;
  constexpr size_t kWeightRows = 16;  // reused from cache by every group of kWide activation rows
  for (size_t first = 0; first < a.rows; first += kWeightRows) {
    const size_t end = a.rows - first < kWeightRows ? a.rows : first + kWeightRows;
    size_t j = 0;
    for (; j + kWide <= a.n; j += kWide) FloatRows<S, Weight<S>, kWide>(a, first, end, j);
    for (; j < a.n; ++j) FloatRows<S, Weight<S>, 1>(a, first, end, j);
  }
}

template <class S>
constexpr void SetFloatKernels(Kernels* t) {
  t->linear[static_cast<int>(DType::kF32)] = {ActFormat::kF32, LinearFloats<S, WeightF32>};
  t->linear[static_cast<int>(DType::kF16)] = {ActFormat::kF32, LinearFloats<S, WeightF16>};
  t->linear[static_cast<int>(DType::kBF16)] = {ActFormat::kF32, LinearFloats<S, WeightBf16>};
}

}  // namespace
}  // namespace edgewise::kernels
