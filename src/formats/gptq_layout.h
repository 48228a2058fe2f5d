// Linear layers as AutoGPTQ and GPTQModel store them: for y = W x with W of (rows, columns),
//   qweight I32 (columns * bits / 32, rows): codes of consecutive columns, lowest bits first;
//   qzeros  I32 (groups, rows * bits / 32):  zero points of consecutive rows, packed likewise;
//   scales  (groups, rows); g_idx I32 (columns): each column's group, in any order ("desc_act").
// W[r][c] = scale[g][r] * (code - zero[g][r]) with g = g_idx[c]. Codes of 3 bits run on from one
// word to the next. The format "gptq" (v1) stores zero - 1, "gptq_v2" the zero itself.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"

namespace edgewise {

struct GptqOptions {
  uint32_t bits = 4;            // 2, 3, 4 or 8
  uint64_t group_size = 0;      // columns; 0: one group of all columns
  bool zeros_minus_one = true;  // the format "gptq"
  bool desc_act = false;        // columns may be in any group, so g_idx must be there
};

struct GptqParts {
  TensorView qweight, qzeros, scales;
  std::optional<TensorView> g_idx;  // absent: column / group_size
};

// A checked layer; views live as long as their file. Immutable, so thread-safe.
class GptqMatrix {
 public:
  // `shape` is (rows, columns), both above 0. Errors: kBadData (a part of another type or shape, a
  // group out of range, no g_idx though columns are in any order, a scale that is not finite),
  // kUnsupported (sizes that do not fill words).
  static Result<GptqMatrix> Make(const GptqOptions& options, const GptqParts& parts,
                                 const Shape& shape);
  // Writes the (rows, columns) values.
  void Decode(float* values) const;
  uint32_t bits() const { return bits_; }

 private:
  uint32_t bits_ = 0;
  uint64_t rows_ = 0, columns_ = 0;
  TensorView qweight_;
  std::vector<float> scales_;       // (groups, rows)
  std::vector<uint16_t> zeros_;     // (groups, rows)
  std::vector<uint32_t> group_of_;  // (columns)
};

// The parts of a layer as written, in "gptq" (v1).
struct GptqWords {
  std::vector<uint32_t> qweight;  // (columns * bits / 32, rows)
  std::vector<uint32_t> qzeros;   // (groups, rows * bits / 32)
  std::vector<uint16_t> scales;   // (groups, rows), halves
  std::vector<int32_t> g_idx;     // (columns)
};

// Packs `codes` (rows, columns) with the `zeros` and `scales` (rows, groups) of consecutive groups.
// Zeros are at least 1, since v1 stores them less 1. `shape` fills words and groups evenly: see
// CheckGptqShape.
GptqWords PackGptq(uint32_t bits, uint64_t group_size, const Shape& shape,
                   std::span<const uint8_t> codes, std::span<const uint8_t> zeros,
                   std::span<const uint16_t> scales);

// Errors: kUnsupported (codes or zeros of this shape do not fill words; a group is left unfilled).
Status CheckGptqShape(uint32_t bits, uint64_t group_size, const Shape& shape);

}  // namespace edgewise
