#include "formats/gptq_layout.h"

#include <algorithm>
#include <cstring>

#include "base/strings.h"
#include "formats/linear_layout.h"

namespace edgewise {
namespace {

using U64 = unsigned long long;

// Rows that are decoded together, so that the words of a column are read as whole cache lines.
constexpr uint64_t kRowBlock = 64;

Status CheckWords(uint32_t bits, const Shape& shape) {
  for (int i = 0; i < 2; ++i) {
    if (shape[i] * bits % 32 == 0) continue;
    return MakeError(Code::kUnsupported,
                     "%llu %s of %u bits do not fill 32-bit words, which GPTQ's layout needs",
                     static_cast<U64>(shape[i]), i == 0 ? "rows" : "columns", bits);
  }
  return Ok{};
}

// The zero points of one group. In v1 they are stored less 1 by arithmetic on whole words, where a
// zero of 0 borrows from the next one, so 1 is added in the same way. Codes of 3 bits cross words
// and were subtracted one by one.
void ReadZeros(const std::byte* words, const GptqOptions& options, uint64_t rows, uint16_t* zeros) {
  const uint32_t bits = options.bits, mask = (1u << bits) - 1;
  const bool whole_words = 32 % bits == 0;
  const uint32_t ones = options.zeros_minus_one ? 0xFFFFFFFFu / mask : 0;
  for (uint64_t row = 0; row < rows; ++row) {
    if (whole_words) {
      uint32_t word;
      std::memcpy(&word, words + row * bits / 32 * 4, 4);
      zeros[row] = static_cast<uint16_t>((word + ones) >> (row * bits % 32) & mask);
    } else {
      const uint32_t stored = ReadCode(words, 1, row * bits, bits);
      zeros[row] = static_cast<uint16_t>((stored + (options.zeros_minus_one ? 1 : 0)) & mask);
    }
  }
}

Result<std::vector<uint32_t>> GroupsOfColumns(const std::optional<TensorView>& g_idx,
                                              uint64_t columns, uint64_t group_size,
                                              uint64_t groups) {
  std::vector<uint32_t> result(columns);
  for (uint64_t c = 0; c < columns; ++c) {
    if (!g_idx) {
      result[c] = static_cast<uint32_t>(c / group_size);
      continue;
    }
    int32_t group;
    std::memcpy(&group, g_idx->data + c * 4, 4);
    if (group < 0 || static_cast<uint64_t>(group) >= groups) {
      return MakeError(Code::kBadData,
                       "g_idx puts column %llu into group %d; there are %llu groups",
                       static_cast<U64>(c), group, static_cast<U64>(groups));
    }
    result[c] = static_cast<uint32_t>(group);
  }
  return result;
}

}  // namespace

Result<GptqMatrix> GptqMatrix::Make(const GptqOptions& options, const GptqParts& parts,
                                    const Shape& shape) {
  EW_TRY(CheckWords(options.bits, shape));
  GptqMatrix matrix;
  matrix.bits_ = options.bits;
  matrix.rows_ = shape[0];
  matrix.columns_ = shape[1];
  const uint64_t group_size = options.group_size == 0 ? shape[1] : options.group_size;
  const uint64_t groups = (shape[1] - 1) / group_size + 1;
  const uint64_t zero_words = shape[0] * options.bits / 32;
  EW_TRY(CheckPart("qweight", parts.qweight, {DType::kI32},
                   Shape{shape[1] * options.bits / 32, shape[0]}));
  EW_TRY(CheckPart("qzeros", parts.qzeros, {DType::kI32}, Shape{groups, zero_words}));
  EW_TRY(CheckPart("scales", parts.scales, kFloatParts, Shape{groups, shape[0]}));
  if (options.desc_act && !parts.g_idx) {
    return MakeError(Code::kBadData, "g_idx is missing, although \"desc_act\" is true");
  }
  if (parts.g_idx) EW_TRY(CheckPart("g_idx", *parts.g_idx, {DType::kI32}, Shape{shape[1]}));
  matrix.qweight_ = parts.qweight;
  EW_TRY(matrix.scales_, ReadFloatPart("scales", parts.scales));
  EW_TRY(matrix.group_of_, GroupsOfColumns(parts.g_idx, shape[1], group_size, groups));
  matrix.zeros_.resize(groups * shape[0]);
  for (uint64_t g = 0; g < groups; ++g) {
    ReadZeros(parts.qzeros.data + g * zero_words * 4, options, shape[0],
              matrix.zeros_.data() + g * shape[0]);
  }
  return matrix;
}

void GptqMatrix::Decode(float* values) const {
  for (uint64_t begin = 0; begin < rows_; begin += kRowBlock) {
    const uint64_t end = std::min(rows_, begin + kRowBlock);
    for (uint64_t c = 0; c < columns_; ++c) {
      const uint64_t first = uint64_t{group_of_[c]} * rows_;
      for (uint64_t r = begin; r < end; ++r) {
        const uint32_t code = ReadCode(qweight_.data + r * 4, rows_, c * bits_, bits_);
        const int level = static_cast<int>(code) - zeros_[first + r];
        values[r * columns_ + c] = scales_[first + r] * static_cast<float>(level);
      }
    }
  }
}

Status CheckGptqShape(uint32_t bits, uint64_t group_size, const Shape& shape) {
  EW_TRY(CheckWords(bits, shape));
  if (shape[1] % group_size == 0) return Ok{};
  return MakeError(Code::kUnsupported, "%llu columns do not divide into groups of %llu",
                   static_cast<U64>(shape[1]), static_cast<U64>(group_size));
}

GptqWords PackGptq(uint32_t bits, uint64_t group_size, const Shape& shape,
                   std::span<const uint8_t> codes, std::span<const uint8_t> zeros,
                   std::span<const uint16_t> scales) {
  const uint64_t rows = shape[0], columns = shape[1], groups = columns / group_size;
  const uint64_t zero_words = rows * bits / 32;
  GptqWords words;
  words.qweight.resize(columns * bits / 32 * rows);
  words.qzeros.resize(groups * zero_words);
  words.scales.resize(groups * rows);
  words.g_idx.resize(columns);
  for (uint64_t r = 0; r < rows; ++r) {
    for (uint64_t c = 0; c < columns; ++c) {
      WriteCode(codes[r * columns + c], rows, c * bits, bits, words.qweight.data() + r);
    }
    for (uint64_t g = 0; g < groups; ++g) {
      EW_CHECK(zeros[r * groups + g] >= 1);
      WriteCode(zeros[r * groups + g] - 1u, 1, r * bits, bits,
                words.qzeros.data() + g * zero_words);
      words.scales[g * rows + r] = scales[r * groups + g];
    }
  }
  for (uint64_t c = 0; c < columns; ++c) words.g_idx[c] = static_cast<int32_t>(c / group_size);
  return words;
}

}  // namespace edgewise
