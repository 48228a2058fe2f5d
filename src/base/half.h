// 16-bit float conversions, bit-exact, round to nearest even. Freestanding: kernels include it,
// so everything is `static inline` (internal linkage, no weak symbols).
#pragma once

#include <stdint.h>
#include <string.h>

namespace edgewise {

// The first two select instead of branching, so that loops over them become vector code.
static inline float HalfToFloat(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(h & 0x7FFFu) << 13;
  const uint32_t rebias = 112u << 23;
  const uint32_t normal =
      magnitude + (magnitude < 0x0F800000u ? rebias : 2 * rebias);  // or inf, NaN
  // Zero or subnormal: mantissa * 2^-24 is exact in float.
  const float small = static_cast<float>(static_cast<int32_t>(h & 0x3FFu)) * 5.9604644775390625e-8f;
  uint32_t small_bits;
  memcpy(&small_bits, &small, 4);
  const uint32_t bits = sign | (magnitude < 0x00800000u ? small_bits : normal);
  float result;
  memcpy(&result, &bits, 4);
  return result;
}

static inline uint16_t FloatToHalf(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  const uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
  float small;  // below 2^-14: adding 0.5 lets the FPU round the subnormal
  memcpy(&small, &magnitude, 4);
  small += 0.5f;
  uint32_t small_bits;
  memcpy(&small_bits, &small, 4);
  uint32_t half = magnitude < 0x38800000u ? small_bits - 0x3F000000u : normal;
  half = magnitude >= 0x477FF000u ? 0x7C00u : half;  // 65520 and above round to infinity
  half = magnitude > 0x7F800000u ? 0x7E00u : half;   // NaN
  return static_cast<uint16_t>(sign | half);
}

static inline float Bf16ToFloat(uint16_t h) {
  const uint32_t bits = static_cast<uint32_t>(h) << 16;
  float result;
  memcpy(&result, &bits, 4);
  return result;
}

static inline uint16_t FloatToBf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 64u);  // NaN
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace edgewise
