// What the layouts of quantized linear layers share: checks of their parts, and codes of a few bits
// in 32-bit words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"

namespace edgewise {

// A part that a layout has under several number formats (F16, BF16, F32).
inline constexpr std::initializer_list<DType> kFloatParts = {DType::kF16, DType::kBF16,
                                                             DType::kF32};

// Errors: kBadData unless the part has one of `types` and exactly this shape; `what` is named.
Status CheckPart(const char* what, const TensorView& part, std::initializer_list<DType> types,
                 const Shape& shape);

// Decodes all values of a part of floats. Errors: kBadData (NaN or infinity).
Result<std::vector<float>> ReadFloatPart(const char* what, const TensorView& part);

// Returns the code of `bits` <= 8 bits at bit `at` of a run of little-endian 32-bit words that lie
// `stride` words apart; a code may begin in one word and end in the next. `words` may have any
// alignment.
inline uint32_t ReadCode(const std::byte* words, uint64_t stride, uint64_t at, uint32_t bits) {
  const std::byte* word = words + at / 32 * stride * 4;
  uint32_t low;
  std::memcpy(&low, word, 4);
  const uint32_t shift = at % 32;
  uint32_t code = low >> shift;
  if (shift + bits > 32) {
    uint32_t high;
    std::memcpy(&high, word + stride * 4, 4);
    code |= high << (32 - shift);
  }
  return code & ((1u << bits) - 1);
}

// Sets the code at bit `at` of such a run, which is zero there.
inline void WriteCode(uint32_t code, uint64_t stride, uint64_t at, uint32_t bits, uint32_t* words) {
  uint32_t* word = words + at / 32 * stride;
  const uint32_t shift = at % 32;
  *word |= code << shift;
  if (shift + bits > 32) word[stride] |= code >> (32 - shift);
}

}  // namespace edgewise
