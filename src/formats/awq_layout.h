// Linear layers as AutoAWQ stores them, version GEMM: for y = W x with W of (rows, columns),
//   qweight I32 (columns, rows / 8): 8 codes of 4 bits of consecutive rows;
//   qzeros  I32 (groups, rows / 8): their zero points; scales (groups, rows).
// W[r][c] = scale[g][r] * (code - zero[g][r]) with g = c / group_size. The nibbles of a word, from
// the lowest, belong to its rows 0, 2, 4, 6, 1, 3, 5, 7.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"

namespace edgewise {

struct AwqOptions {
  uint64_t group_size = 0;  // columns; 0: one group of all columns
};

struct AwqParts {
  TensorView qweight, qzeros, scales;
};

// A checked layer; views live as long as their file. Immutable, so thread-safe.
class AwqMatrix {
 public:
  // `shape` is (rows, columns), both above 0. Errors: kBadData (a part of another type or shape, a
  // scale that is not finite), kUnsupported (rows no multiple of 8).
  static Result<AwqMatrix> Make(const AwqOptions& options, const AwqParts& parts,
                                const Shape& shape);
  // Writes the (rows, columns) values.
  void Decode(float* values) const;

 private:
  uint64_t rows_ = 0, columns_ = 0, group_size_ = 0;
  TensorView qweight_, qzeros_;
  std::vector<float> scales_;  // (groups, rows)
};

// The parts of a layer as written.
struct AwqWords {
  std::vector<uint32_t> qweight;  // (columns, rows / 8)
  std::vector<uint32_t> qzeros;   // (groups, rows / 8)
  std::vector<uint16_t> scales;   // (groups, rows), halves
};

// Packs `codes` (rows, columns) with the `zeros` and `scales` (rows, groups). `shape` fills words
// and groups evenly: see CheckAwqShape.
AwqWords PackAwq(uint64_t group_size, const Shape& shape, std::span<const uint8_t> codes,
                 std::span<const uint8_t> zeros, std::span<const uint16_t> scales);

// Errors: kUnsupported (rows do not fill words; a group is left unfilled).
Status CheckAwqShape(uint64_t group_size, const Shape& shape);

}  // namespace edgewise
