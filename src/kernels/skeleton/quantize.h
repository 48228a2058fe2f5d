// Rounding of activations to int8, scale = largest / 127, ties to even. Plain loops that every
// level compiles with its own flags: integers and scales are the same bits at every level.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "quant/blocks.h"

namespace edgewise::kernels {
namespace {

// Below this, 127 / largest may be infinite: the block becomes zeros.
constexpr float kSmallestScaled = 1e-30f;

// Rounds |x| <= 2^22 to the nearest integer, ties to even. Any other input, NaN too, gives some
// int8.
inline int8_t RoundToInt8(float x) {
  const float shifted = x + 12582912.0f;
  uint32_t bits;
  memcpy(&bits, &shifted, 4);
  return static_cast<int8_t>(bits & 255u);
}

// The largest |x|, or NaN if there is one; as integers, because their maximum can be vectorized.
template <size_t n>
inline float LargestMagnitude(const float* x) {
  uint32_t bits[n];
  memcpy(bits, x, sizeof(bits));
  uint32_t largest_bits = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint32_t magnitude = bits[i] & 0x7FFFFFFFu;
    largest_bits = magnitude > largest_bits ? magnitude : largest_bits;
  }
  float largest;
  memcpy(&largest, &largest_bits, 4);
  return largest;
}

// Returns the scale. NaN and infinity reach it, so that they show in the product.
template <size_t n>
inline float QuantizeBlock(const float* x, int8_t* q) {
  const float largest = LargestMagnitude<n>(x);
  if (largest < kSmallestScaled) {
    memset(q, 0, n);
    return 0.0f;
  }
  const float inverse = 127.0f / largest;
  for (size_t i = 0; i < n; ++i) q[i] = RoundToInt8(x[i] * inverse);
  return largest / 127.0f;
}

void QuantizeQ8(const float* x, void* blocks, size_t n) {
  auto* out = static_cast<ActQ8*>(blocks);
  for (size_t b = 0; b < n / 32; ++b) {
    int8_t q[32];
    const float scale = QuantizeBlock<32>(x + 32 * b, q);
    int32_t low = 0, high = 0;
    for (int i = 0; i < 16; ++i) low += q[i];
    for (int i = 16; i < 32; ++i) high += q[i];
    const int32_t sums[3] = {low + high, low, high};
    memcpy(out[b].q, q, 32);
    out[b].scale = scale;
    for (int i = 0; i < 3; ++i) {
      out[b].sums[i] = scale * static_cast<float>(sums[i]);
      out[b].negated[i] = -sums[i];
    }
    out[b].unused = 0;
  }
}

}  // namespace
}  // namespace edgewise::kernels
