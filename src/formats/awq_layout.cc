#include "formats/awq_layout.h"

#include <cstring>

#include "base/strings.h"
#include "formats/linear_layout.h"

namespace edgewise {
namespace {

using U64 = unsigned long long;

constexpr uint64_t kPerWord = 8;

// The bit at which a word holds the code of its row r.
constexpr uint32_t kShift[kPerWord] = {0, 16, 4, 20, 8, 24, 12, 28};

uint32_t Nibble(const std::byte* words, uint64_t row) {
  uint32_t word;
  std::memcpy(&word, words + row / kPerWord * 4, 4);
  return word >> kShift[row % kPerWord] & 15;
}

Status CheckRows(const Shape& shape) {
  if (shape[0] % kPerWord == 0) return Ok{};
  return MakeError(Code::kUnsupported,
                   "%llu rows do not fill words of 8 codes, which AWQ's layout needs",
                   static_cast<U64>(shape[0]));
}

}  // namespace

Result<AwqMatrix> AwqMatrix::Make(const AwqOptions& options, const AwqParts& parts,
                                  const Shape& shape) {
  EW_TRY(CheckRows(shape));
  AwqMatrix matrix;
  matrix.rows_ = shape[0];
  matrix.columns_ = shape[1];
  matrix.group_size_ = options.group_size == 0 ? shape[1] : options.group_size;
  const uint64_t groups = (shape[1] - 1) / matrix.group_size_ + 1;
  const uint64_t words = shape[0] / kPerWord;
  EW_TRY(CheckPart("qweight", parts.qweight, {DType::kI32}, Shape{shape[1], words}));
  EW_TRY(CheckPart("qzeros", parts.qzeros, {DType::kI32}, Shape{groups, words}));
  EW_TRY(CheckPart("scales", parts.scales, kFloatParts, Shape{groups, shape[0]}));
  matrix.qweight_ = parts.qweight;
  matrix.qzeros_ = parts.qzeros;
  EW_TRY(matrix.scales_, ReadFloatPart("scales", parts.scales));
  return matrix;
}

void AwqMatrix::Decode(float* values) const {
  const uint64_t word_bytes = rows_ / kPerWord * 4;
  // Eight rows at a time: a column's codes for them stand in one word.
  for (uint64_t begin = 0; begin < rows_; begin += kPerWord) {
    for (uint64_t c = 0; c < columns_; ++c) {
      const uint64_t group = c / group_size_;
      const std::byte* codes = qweight_.data + c * word_bytes;
      const std::byte* zeros = qzeros_.data + group * word_bytes;
      for (uint64_t r = begin; r < begin + kPerWord; ++r) {
        const int level = static_cast<int>(Nibble(codes, r)) - static_cast<int>(Nibble(zeros, r));
        values[r * columns_ + c] = scales_[group * rows_ + r] * static_cast<float>(level);
      }
    }
  }
}

Status CheckAwqShape(uint64_t group_size, const Shape& shape) {
  EW_TRY(CheckRows(shape));
  if (shape[1] % group_size == 0) return Ok{};
  return MakeError(Code::kUnsupported, "%llu columns do not divide into groups of %llu",
                   static_cast<U64>(shape[1]), static_cast<U64>(group_size));
}

AwqWords PackAwq(uint64_t group_size, const Shape& shape, std::span<const uint8_t> codes,
                 std::span<const uint8_t> zeros, std::span<const uint16_t> scales) {
  const uint64_t rows = shape[0], columns = shape[1], groups = columns / group_size;
  const uint64_t per_line = rows / kPerWord;
  AwqWords words;
  words.qweight.resize(columns * per_line);
  words.qzeros.resize(groups * per_line);
  words.scales.resize(groups * rows);
  for (uint64_t r = 0; r < rows; ++r) {
    const uint32_t shift = kShift[r % kPerWord];
    for (uint64_t c = 0; c < columns; ++c) {
      words.qweight[c * per_line + r / kPerWord] |= uint32_t{codes[r * columns + c]} << shift;
    }
    for (uint64_t g = 0; g < groups; ++g) {
      words.qzeros[g * per_line + r / kPerWord] |= uint32_t{zeros[r * groups + g]} << shift;
      words.scales[g * rows + r] = scales[r * groups + g];
    }
  }
  return words;
}

}  // namespace edgewise
