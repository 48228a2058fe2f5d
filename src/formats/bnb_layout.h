// Linear layers as bitsandbytes stores them, beside W of (rows, columns) named "x.weight".
// 4 bits (NF4, FP4): weight: two codes in a byte, all rows as one run; weight.absmax: a magnitude
// per block; weight.quant_map F32 (16); and, as JSON text,
// weight.quant_state.bitsandbytes__nf4 {"quant_type", "blocksize", "shape", "dtype"}.
// With double quantization absmax is U8 and there are weight.nested_absmax, weight.nested_quant_map
// F32 (256), and "nested_blocksize", "nested_offset" in the JSON.
// 8 bits (LLM.int8): weight I8 (rows, columns); SCB F32 (rows): W = weight * SCB / 127; and
// weight_format U8, 0 for rows as they are.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"

namespace edgewise {

struct Bnb4Parts {
  TensorView weight;  // bytes of any type: "bnb_4bit_quant_storage" only names it
  TensorView absmax, quant_map, quant_state;
  std::optional<TensorView> nested_absmax, nested_quant_map;
};

// A checked layer; views live as long as their file. Immutable, so thread-safe.
class Bnb4Matrix {
 public:
  // `shape` is (rows, columns), both above 0. Errors: kBadData (a part of another type or size, a
  // state that is no such JSON or speaks of another shape, a value that is not finite).
  static Result<Bnb4Matrix> Make(const Bnb4Parts& parts, const Shape& shape);
  // Writes the (rows, columns) values.
  void Decode(float* values) const;

 private:
  uint64_t elements_ = 0, block_ = 0;
  TensorView weight_;
  std::array<float, 16> map_ = {};
  std::vector<float> absmax_;  // (blocks)
};

struct Bnb8Parts {
  TensorView weight, scb;
  std::optional<TensorView> weight_format;
};

// As Bnb4Matrix. Errors: also kUnsupported (rows in the tiled order of old GPU kernels).
class Bnb8Matrix {
 public:
  static Result<Bnb8Matrix> Make(const Bnb8Parts& parts, const Shape& shape);
  void Decode(float* values) const;

 private:
  TensorView weight_;
  std::vector<float> scales_;  // (rows)
};

// The parts of an NF4 layer as written, double quantization included.
struct Bnb4Bytes {
  std::vector<uint8_t> weight;       // (rows * columns + 1) / 2
  std::vector<uint8_t> absmax;       // blocks of 64
  std::vector<float> nested_absmax;  // blocks of 256 magnitudes
  float nested_offset = 0;
  std::array<float, 256> nested_quant_map = {};
  std::string quant_state;  // JSON
};

// The state is padded with blanks to this, so that its size does not depend on the values.
inline constexpr size_t kNf4StateBytes = 256;

// Encodes finite `values` (rows, columns) with the bits that bitsandbytes gives them.
Bnb4Bytes PackNf4(std::span<const float> values, const Shape& shape);

// The parts of an 8-bit layer as written: one magnitude for each row, that is output channel.
struct Bnb8Bytes {
  std::vector<int8_t> weight;  // (rows, columns)
  std::vector<float> scb;      // (rows): the largest magnitude
};

// Encodes finite `values` (rows, columns) as LLM.int8 (Dettmers et al. 2022) does its weights.
Bnb8Bytes PackInt8(std::span<const float> values, const Shape& shape);

}  // namespace edgewise
