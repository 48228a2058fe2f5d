// The packed layout of block-quantized matrices, which the kernels read: 16 rows interleaved, so
// that one vector holds the same columns of several rows. Freestanding: kernel files include it.
//
// A group of 16 rows is a run of tiles, one per block of columns. A tile holds the 16 rows' blocks
// (quant/blocks.h) field by field, each field cut into units; unit u of row r of a field that
// begins at byte f of the block lies at byte 16 * f + (16 * u + r) * unit of the tile:
//   halves and other scales   their own size, so that 16 rows' scales are one vector
//   quantized values          4 bytes, as the dot instructions of x86 and Arm take them
// So a tile has 16 * block bytes and the same bits as the blocks, for every instruction set. A
// matrix whose rows are no multiple of 16 is padded with rows of zero bytes.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "quant/dtype_id.h"

namespace edgewise {

inline constexpr size_t kPackedRows = 16;

struct PackedField {
  uint16_t bytes;  // of one block
  uint8_t unit;
};
// The fields of a block in order; bytes 0 ends the list.
struct PackedLayout {
  PackedField fields[6];
};

// The layout of `type`; without fields where there is none (the float formats and integers).
constexpr PackedLayout PackedLayoutOf(DType type) {
  switch (type) {
    case DType::kQ4_0:
    case DType::kIQ4_NL:
      return {{{2, 2}, {16, 4}}};
    case DType::kQ4_1:
      return {{{2, 2}, {2, 2}, {16, 4}}};
    case DType::kQ5_0:
      return {{{2, 2}, {4, 4}, {16, 4}}};
    case DType::kQ5_1:
      return {{{2, 2}, {2, 2}, {4, 4}, {16, 4}}};
    case DType::kQ8_0:
      return {{{2, 2}, {32, 4}}};
    case DType::kQ2_K:
      return {{{16, 1}, {64, 4}, {2, 2}, {2, 2}}};
    case DType::kQ3_K:
      return {{{32, 4}, {64, 4}, {12, 1}, {2, 2}}};
    case DType::kQ4_K:
      return {{{2, 2}, {2, 2}, {12, 1}, {128, 4}}};
    case DType::kQ5_K:
      return {{{2, 2}, {2, 2}, {12, 1}, {32, 4}, {128, 4}}};
    case DType::kQ6_K:
      return {{{128, 4}, {64, 4}, {16, 1}, {2, 2}}};
    case DType::kIQ4_XS:
      return {{{2, 2}, {2, 1}, {4, 1}, {128, 4}}};
    default:
      return {};
  }
}

}  // namespace edgewise
