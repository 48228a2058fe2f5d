// Formats of single values: floats and plain integers.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "quant/codecs.h"

namespace edgewise::quant {
namespace {

// Reads unaligned values of type T.
template <class T>
void DecodeNumbers(const void* blocks, float* values, size_t n) {
  const char* bytes = static_cast<const char*>(blocks);
  for (size_t i = 0; i < n; ++i) {
    T value;
    std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
    values[i] = static_cast<float>(value);
  }
}

template <float (*Convert)(uint16_t)>
void DecodeHalves(const void* blocks, float* values, size_t n) {
  const char* bytes = static_cast<const char*>(blocks);
  for (size_t i = 0; i < n; ++i) {
    uint16_t half;
    std::memcpy(&half, bytes + 2 * i, 2);
    values[i] = Convert(half);
  }
}

// Values beyond `largest`, which would round to infinity, become the largest finite one.
template <uint16_t (*Convert)(float)>
void EncodeHalves(const float* values, float largest, void* blocks, size_t n) {
  char* bytes = static_cast<char*>(blocks);
  for (size_t i = 0; i < n; ++i) {
    const uint16_t half = Convert(std::clamp(values[i], -largest, largest));
    std::memcpy(bytes + 2 * i, &half, 2);
  }
}

}  // namespace

void DecodeF32(const void* blocks, float* values, size_t n) {
  if (n != 0) std::memcpy(values, blocks, n * sizeof(float));
}
void DecodeF16(const void* blocks, float* values, size_t n) {
  DecodeHalves<HalfToFloat>(blocks, values, n);
}
void DecodeBF16(const void* blocks, float* values, size_t n) {
  DecodeHalves<Bf16ToFloat>(blocks, values, n);
}
void DecodeI8(const void* blocks, float* values, size_t n) {
  DecodeNumbers<int8_t>(blocks, values, n);
}
void DecodeI16(const void* blocks, float* values, size_t n) {
  DecodeNumbers<int16_t>(blocks, values, n);
}
void DecodeI32(const void* blocks, float* values, size_t n) {
  DecodeNumbers<int32_t>(blocks, values, n);
}
void DecodeI64(const void* blocks, float* values, size_t n) {
  DecodeNumbers<int64_t>(blocks, values, n);
}
void DecodeF64(const void* blocks, float* values, size_t n) {
  DecodeNumbers<double>(blocks, values, n);
}

void EncodeF32(const float* values, const float*, void* blocks, size_t n) {
  if (n != 0) std::memcpy(blocks, values, n * sizeof(float));
}
void EncodeF16(const float* values, const float*, void* blocks, size_t n) {
  EncodeHalves<FloatToHalf>(values, 65504.0f, blocks, n);
}
void EncodeBF16(const float* values, const float*, void* blocks, size_t n) {
  EncodeHalves<FloatToBf16>(values, 0x1.FEp127f, blocks, n);
}
void EncodeF64(const float* values, const float*, void* blocks, size_t n) {
  char* bytes = static_cast<char*>(blocks);
  for (size_t i = 0; i < n; ++i) {
    const double value = values[i];
    std::memcpy(bytes + i * sizeof(double), &value, sizeof(double));
  }
}

}  // namespace edgewise::quant
