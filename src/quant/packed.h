// Packing of block-quantized matrices for the kernels (quant/packed_layout.h) and back.
#pragma once

#include <cstddef>

#include "quant/dtype.h"
#include "quant/packed_layout.h"

namespace edgewise {

// True for the formats in blocks: those whose kernels read packed rows.
bool IsPacked(DType type);

// `rows` rounded up to a multiple of 16.
constexpr size_t PaddedRows(size_t rows) {
  return (rows + kPackedRows - 1) / kPackedRows * kPackedRows;
}

// Bytes of a packed matrix: those of its padded rows.
size_t PackedBytes(DType type, size_t rows, size_t columns);

// Packs `rows` <= 16 rows, `stride` bytes apart, into one group of 16 at `group`; the missing ones
// become zero bytes. Columns are a multiple of the block. Thread-safe.
void PackGroup(DType type, const std::byte* rows, size_t stride, size_t count, size_t columns,
               std::byte* group);

// Writes row `row` < 16 of a group as blocks.
void UnpackRow(DType type, const std::byte* group, size_t row, size_t columns, std::byte* blocks);

}  // namespace edgewise
