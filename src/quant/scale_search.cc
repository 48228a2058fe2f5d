#include "quant/scale_search.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/half.h"

namespace edgewise::quant {

extern constinit const std::array<float, 256> kIntegers = [] {
  std::array<float, 256> table{};
  for (int i = 0; i < 256; ++i) table[static_cast<size_t>(i)] = static_cast<float>(i - 128);
  return table;
}();

PowerOfTwo Normalizer(const float* x, size_t n) {
  int32_t largest = 0;  // of magnitudes, whose order is that of their bits
  for (size_t i = 0; i < n; ++i) {
    int32_t bits;
    std::memcpy(&bits, x + i, sizeof(bits));
    largest = std::max(largest, bits & 0x7FFFFFFF);
  }
  const int32_t exponent = std::max(253 - (largest >> 23), 1);
  const int32_t scale_bits = exponent << 23, inverse_bits = (254 - exponent) << 23;
  PowerOfTwo result;
  std::memcpy(&result.scale, &scale_bits, sizeof(float));
  std::memcpy(&result.inverse, &inverse_bits, sizeof(float));
  return result;
}

const float* UsableWeights(const float* weights, size_t n) {
  if (weights == nullptr) return nullptr;
  return std::any_of(weights, weights + n, [](float w) { return w > 0; }) ? weights : nullptr;
}

uint16_t FiniteHalf(float value) { return FloatToHalf(std::clamp(value, -65504.0f, 65504.0f)); }

uint16_t CoveringHalf(float value) {
  const uint16_t half = FiniteHalf(value);
  return half < 0x0400 && HalfToFloat(half) < 0.98f * value ? half + 1 : half;
}

}  // namespace edgewise::quant
