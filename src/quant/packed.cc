#include "quant/packed.h"

#include <cstring>

#include "base/check.h"

namespace edgewise {
namespace {

template <size_t kUnit>
void Interleave(const std::byte* block, size_t bytes, size_t row, std::byte* field) {
  for (size_t u = 0; u < bytes / kUnit; ++u) {
    std::memcpy(field + (kPackedRows * u + row) * kUnit, block + u * kUnit, kUnit);
  }
}

// The block of row `row`, null for zeros, goes to its places in the tile.
void PackBlock(const PackedLayout& layout, const std::byte* block, size_t row, std::byte* tile) {
  for (const PackedField& field : layout.fields) {
    if (field.unit == 1) Interleave<1>(block + field.offset, field.bytes, row, tile);
    if (field.unit == 2) Interleave<2>(block + field.offset, field.bytes, row, tile);
    if (field.unit == 4) Interleave<4>(block + field.offset, field.bytes, row, tile);
    tile += kPackedRows * field.bytes;
  }
}

}  // namespace

bool IsPacked(DType type) { return PackedLayoutOf(type).fields[0].bytes != 0; }

size_t PackedBytes(DType type, size_t rows, size_t columns) {
  return (rows + kPackedRows - 1) / kPackedRows * kPackedRows * Info(type).RowBytes(columns);
}

void PackGroup(DType type, const std::byte* rows, size_t stride, size_t count, size_t columns,
               std::byte* group) {
  EW_CHECK(IsPacked(type) && count <= kPackedRows);
  const PackedLayout layout = PackedLayoutOf(type);
  const size_t block_bytes = Info(type).block_bytes, blocks = columns / Info(type).block;
  if (count < kPackedRows) std::memset(group, 0, kPackedRows * blocks * block_bytes);
  for (size_t b = 0; b < blocks; ++b) {
    for (size_t r = 0; r < count; ++r) {
      PackBlock(layout, rows + r * stride + b * block_bytes, r,
                group + kPackedRows * b * block_bytes);
    }
  }
}

void UnpackRow(DType type, const std::byte* group, size_t row, size_t columns, std::byte* blocks) {
  EW_CHECK(IsPacked(type) && row < kPackedRows);
  const PackedLayout layout = PackedLayoutOf(type);
  for (size_t b = 0; b < columns / Info(type).block; ++b) {
    for (const PackedField& field : layout.fields) {
      const size_t units = field.unit == 0 ? 0 : field.bytes / field.unit;
      for (size_t u = 0; u < units; ++u) {
        std::memcpy(blocks + field.offset + u * field.unit,
                    group + (kPackedRows * u + row) * field.unit, field.unit);
      }
      group += kPackedRows * field.bytes;
    }
    blocks += Info(type).block_bytes;
  }
}

}  // namespace edgewise
