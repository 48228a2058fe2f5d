// The operations of skeleton/gemm.h in plain C++: 4 lanes in a vector type of the compiler, which
// it maps to what the plain target has. A product is rounded before it is added.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/half.h"

namespace edgewise::kernels {
namespace {

struct PlainGemm {
  typedef float V __attribute__((vector_size(16)));
  static constexpr size_t kWidth = 4;
  static constexpr size_t kRows = 4, kVectors = 2;

  static V Zero() { return Set(0); }
  static V Set(float value) { return V{value, value, value, value}; }
  static V Load(const float* p) { return V{p[0], p[1], p[2], p[3]}; }
  static void Store(float* p, V v) {
    for (size_t i = 0; i < kWidth; ++i) p[i] = v[i];
  }
  static V Add(V a, V b) { return a + b; }
  static V Fma(V a, V b, V c) { return a * b + c; }

  static V LoadRows(const float* const* rows, size_t k) { return Load(rows[0] + k); }
  static void Transpose4(V* v) {
    const V rows[4] = {v[0], v[1], v[2], v[3]};
    for (size_t i = 0; i < 4; ++i) v[i] = V{rows[0][i], rows[1][i], rows[2][i], rows[3][i]};
  }
  static V RoundToBf16(V v) {
    for (size_t i = 0; i < kWidth; ++i) v[i] = Bf16ToFloat(FloatToBf16(v[i]));
    return v;
  }
};

}  // namespace
}  // namespace edgewise::kernels
