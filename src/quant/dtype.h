// Number formats: one row per format in dtype.cc, one file per family for its encode and decode.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "quant/dtype_id.h"

namespace edgewise {

// Decodes `n` values, a multiple of the block, to floats.
using DecodeFn = void (*)(const void* blocks, float* values, size_t n);
// Encodes `n` values, a multiple of the block, by least squares weighted by `weights` (n of them,
// finite and >= 0, the importance of each input column; null = 1 each). Deterministic: the same
// bytes on every machine. NaN and infinity must have been refused before. Values beyond what the
// format can hold become its largest, so decoding is always finite.
using EncodeFn = void (*)(const float* values, const float* weights, void* blocks, size_t n);

struct DTypeInfo {
  DType id;
  const char* name;      // as llama-quantize writes it in lower case: "q4_K" is "q4_k" here
  int32_t gguf_id;       // ggml_type number in a GGUF file; 0x24..: our own, no other reader's
  uint32_t block;        // values per block
  uint32_t block_bytes;  // bytes per block
  DecodeFn decode;
  EncodeFn encode;  // null: cannot be written by us
  // Of sparse formats: of each so many consecutive values at most half can be other than 0; else 0.
  uint32_t sparse_group = 0;

  bool sparse() const { return sparse_group != 0; }
  // Integers with scales; the blocks of 16 of S24_F16 and S24_BF16 hold floats.
  bool quantized() const { return block > 16; }
  double bits_per_weight() const { return 8.0 * block_bytes / block; }
  // Bytes of a row of `columns` values; the caller has checked that the block divides it.
  size_t RowBytes(size_t columns) const { return columns / block * block_bytes; }
};

// Returns the row of `type`.
const DTypeInfo& Info(DType type);
// Case-insensitive: "Q4_K", "q4_k".
std::optional<DType> DTypeFromName(std::string_view name);
std::optional<DType> DTypeFromGgufId(uint32_t gguf_id);
std::span<const DTypeInfo> AllDTypes();

}  // namespace edgewise
