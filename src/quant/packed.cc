#include "quant/packed.h"

#include <array>
#include <cstdint>
#include <cstring>

#include "base/check.h"

namespace edgewise {
namespace {

template <size_t kCount>
using Bytes = std::array<std::byte, kCount>;

// Moves unit u of row r, of a field of `units` units in rows `stride` bytes apart, to place
// 16 * u + r. With `count` a constant the inner loop is straight code.
template <class Unit>
inline void Interleave(const std::byte* field, size_t stride, size_t count, size_t units,
                       std::byte* out) {
  for (size_t u = 0; u < units; ++u) {
    for (size_t r = 0; r < count; ++r) {
      std::memcpy(out + r * sizeof(Unit), field + r * stride + u * sizeof(Unit), sizeof(Unit));
    }
    out += kPackedRows * sizeof(Unit);
  }
}

// The way back for one row.
template <class Unit>
inline void Pick(const std::byte* field, size_t row, size_t units, std::byte* out) {
  for (size_t u = 0; u < units; ++u) {
    std::memcpy(out + u * sizeof(Unit), field + (kPackedRows * u + row) * sizeof(Unit),
                sizeof(Unit));
  }
}

// Asks for the cache lines of memory that may not even exist.
inline void Prefetch(uintptr_t address, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) {
    __builtin_prefetch(reinterpret_cast<const void*>(address + i));
  }
}

// Interleaves one block of each of `count` rows into a tile.
inline void PackTile(const PackedLayout& layout, const std::byte* blocks, size_t stride,
                     size_t count, std::byte* tile) {
  for (const PackedField& field : layout.fields) {
    const std::byte* from = blocks + field.offset;
    if (field.unit == 1) Interleave<uint8_t>(from, stride, count, field.bytes, tile);
    if (field.unit == 2) Interleave<uint16_t>(from, stride, count, field.bytes / 2, tile);
    if (field.unit == 4) Interleave<uint32_t>(from, stride, count, field.bytes / 4, tile);
    if (field.unit == 8) Interleave<uint64_t>(from, stride, count, field.bytes / 8, tile);
    if (field.unit == 16) Interleave<Bytes<16>>(from, stride, count, field.bytes / 16, tile);
    if (field.unit == 32) Interleave<Bytes<32>>(from, stride, count, field.bytes / 32, tile);
    tile += kPackedRows * field.bytes;
  }
}

}  // namespace

bool IsPacked(DType type) { return PackedLayoutOf(type).fields[0].bytes != 0; }

size_t PackedBytes(DType type, size_t rows, size_t columns) {
  return PaddedRows(rows) * Info(type).RowBytes(columns);
}

void PackGroup(DType type, const std::byte* rows, size_t stride, size_t count, size_t columns,
               std::byte* group) {
  EW_CHECK(IsPacked(type) && count <= kPackedRows);
  const PackedLayout layout = PackedLayoutOf(type);
  const size_t block_bytes = Info(type).block_bytes, blocks = columns / Info(type).block;
  const size_t tile_bytes = kPackedRows * block_bytes;
  if (count < kPackedRows) std::memset(group, 0, blocks * tile_bytes);
  // Groups mostly follow one another in a matrix; hardware does not foresee 16 streams.
  const uintptr_t next = reinterpret_cast<uintptr_t>(rows) + kPackedRows * stride;
  for (size_t b = 0; b < blocks; ++b) {
    const std::byte* from = rows + b * block_bytes;
    std::byte* tile = group + b * tile_bytes;
    Prefetch(next + b * tile_bytes, tile_bytes);
    if (count == kPackedRows) {
      PackTile(layout, from, stride, kPackedRows, tile);
    } else {
      PackTile(layout, from, stride, count, tile);
    }
  }
}

void UnpackRow(DType type, const std::byte* group, size_t row, size_t columns, std::byte* blocks) {
  EW_CHECK(IsPacked(type) && row < kPackedRows);
  const PackedLayout layout = PackedLayoutOf(type);
  for (size_t b = 0; b < columns / Info(type).block; ++b) {
    for (const PackedField& field : layout.fields) {
      std::byte* to = blocks + field.offset;
      if (field.unit == 1) Pick<uint8_t>(group, row, field.bytes, to);
      if (field.unit == 2) Pick<uint16_t>(group, row, field.bytes / 2, to);
      if (field.unit == 4) Pick<uint32_t>(group, row, field.bytes / 4, to);
      if (field.unit == 8) Pick<uint64_t>(group, row, field.bytes / 8, to);
      if (field.unit == 16) Pick<Bytes<16>>(group, row, field.bytes / 16, to);
      if (field.unit == 32) Pick<Bytes<32>>(group, row, field.bytes / 32, to);
      group += kPackedRows * field.bytes;
    }
    blocks += Info(type).block_bytes;
  }
}

}  // namespace edgewise
