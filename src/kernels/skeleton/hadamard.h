// The fast Walsh-Hadamard transform, for the table of every instruction set: additions only, in one
// order, so that all give the same bits.
#pragma once

#include <math.h>
#include <stddef.h>

#include "kernels/kernels.h"

namespace edgewise::kernels {
namespace {

void Hadamard(float* x, size_t heads, size_t head_dim) {
  const size_t size = head_dim & (~head_dim + 1);  // the largest power of two that divides it
  const float factor = 1.0f / sqrtf(static_cast<float>(size));
  for (float* block = x; block < x + heads * head_dim; block += size) {
    for (size_t half = 1; half < size; half *= 2) {
      for (size_t i = 0; i < size; i += 2 * half) {
        for (size_t j = i; j < i + half; ++j) {
          const float a = block[j], b = block[j + half];
          block[j] = a + b;
          block[j + half] = a - b;
        }
      }
    }
    for (size_t i = 0; i < size; ++i) block[i] *= factor;
  }
}

}  // namespace
}  // namespace edgewise::kernels
