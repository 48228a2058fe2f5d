// The packed layout of block-quantized matrices, which the kernels read: 16 rows interleaved, so
// that one vector holds the same columns of several rows. Freestanding: kernel files include it.
//
// A group of 16 rows is a run of tiles, one per block of columns. A tile holds the 16 rows' blocks
// (quant/blocks.h) field by field in the order below: scales first, then the values in the order of
// their columns, so that a reader goes straight through memory. Each field is cut into units; unit
// u of row r of a field that begins at byte t of the tile lies at t + (16 * u + r) * unit:
//   halves and other scales   their own size, so that 16 rows' scales are one vector
//   quantized values          4 bytes, as the dot instructions of x86 and Arm take them
//   masks, values under them  all of a row's
// So a tile has 16 * block bytes and the same bits as the blocks, for every instruction set. A
// matrix whose rows are no multiple of 16 is padded with rows of zero bytes.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "quant/dtype_id.h"

namespace edgewise {

inline constexpr size_t kPackedRows = 16;

struct PackedField {
  uint16_t offset;  // in the block
  uint16_t bytes;
  uint8_t unit;
};
// The fields of a block in the order of the tile; bytes 0 ends the list.
struct PackedLayout {
  PackedField fields[6];
};

// The layout of `type`; without fields where there is none (the float formats and integers).
constexpr PackedLayout PackedLayoutOf(DType type) {
  switch (type) {
    case DType::kQ4_0:
    case DType::kIQ4_NL:
      return {{{0, 2, 2}, {2, 16, 4}}};
    case DType::kQ4_1:
      return {{{0, 2, 2}, {2, 2, 2}, {4, 16, 4}}};
    case DType::kQ5_0:
      return {{{0, 2, 2}, {2, 4, 4}, {6, 16, 4}}};
    case DType::kQ5_1:
      return {{{0, 2, 2}, {2, 2, 2}, {4, 4, 4}, {8, 16, 4}}};
    case DType::kQ8_0:
      return {{{0, 2, 2}, {2, 32, 4}}};
    case DType::kQ2_K:
      return {{{80, 2, 2}, {82, 2, 2}, {0, 16, 1}, {16, 64, 4}}};
    case DType::kQ3_K:
      return {{{108, 2, 2}, {96, 12, 1}, {0, 32, 4}, {32, 64, 4}}};
    case DType::kQ4_K:
      return {{{0, 2, 2}, {2, 2, 2}, {4, 12, 1}, {16, 128, 4}}};
    case DType::kQ5_K:
      return {{{0, 2, 2}, {2, 2, 2}, {4, 12, 1}, {16, 32, 4}, {48, 128, 4}}};
    case DType::kQ6_K:
      return {{{208, 2, 2}, {192, 16, 1}, {128, 32, 4}, {0, 64, 4}, {160, 32, 4}, {64, 64, 4}}};
    case DType::kIQ4_XS:
      return {{{0, 2, 2}, {2, 2, 1}, {4, 4, 1}, {8, 128, 4}}};
    case DType::kS24_Q4:  // the positions and values of 32 columns, then those of the next 32
      return {{{0, 2, 2}, {2, 4, 4}, {10, 8, 4}, {6, 4, 4}, {18, 8, 4}}};
    case DType::kS24_Q8:
      return {{{0, 2, 2}, {2, 4, 4}, {10, 16, 4}, {6, 4, 4}, {26, 16, 4}}};
    case DType::kBM_Q4:  // rows stay whole: where a value belongs depends on those before it
      return {{{0, 2, 2}, {2, 8, 8}, {10, 16, 16}}};
    case DType::kBM_Q8:
      return {{{0, 2, 2}, {2, 8, 8}, {10, 32, 32}}};
    default:
      return {};
  }
}

}  // namespace edgewise
