#include "quant/packed.h"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/rng.h"
#include "quant/blocks.h"

namespace edgewise {
namespace {

std::vector<std::byte> RandomBytes(size_t count) {
  Rng rng(count);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.Next());
  return bytes;
}

}  // namespace

TEST_CASE("the fields of every layout make up its block") {
  for (int id = 0; id < kDTypeCount; ++id) {
    const auto type = static_cast<DType>(id);
    CAPTURE(std::string(Info(type).name));
    CHECK(IsPacked(type) == Info(type).quantized());
    if (!IsPacked(type)) continue;
    std::vector<int> covered(Info(type).block_bytes);
    for (const PackedField& field : PackedLayoutOf(type).fields) {
      if (field.bytes > 0) CHECK(field.bytes % field.unit == 0);
      for (size_t i = 0; i < field.bytes; ++i) ++covered.at(field.offset + i);
    }
    for (const int times : covered) CHECK(times == 1);
  }
}

TEST_CASE("packing loses nothing and pads with zeros") {
  for (int id = 0; id < kDTypeCount; ++id) {
    const auto type = static_cast<DType>(id);
    if (!IsPacked(type)) continue;
    CAPTURE(std::string(Info(type).name));
    const size_t columns = 3 * Info(type).block, row_bytes = Info(type).RowBytes(columns);
    const size_t stride = row_bytes + 5;
    for (const size_t count : {1u, 7u, 16u}) {
      const std::vector<std::byte> rows = RandomBytes(count * stride);
      REQUIRE(PackedBytes(type, count, columns) == 16 * row_bytes);
      std::vector<std::byte> group = RandomBytes(16 * row_bytes);
      PackGroup(type, rows.data(), stride, count, columns, group.data());
      std::vector<std::byte> back(row_bytes);
      for (size_t r = 0; r < kPackedRows; ++r) {
        UnpackRow(type, group.data(), r, columns, back.data());
        const std::vector<std::byte> zeros(row_bytes);
        const std::byte* expected = r < count ? rows.data() + r * stride : zeros.data();
        CHECK(std::memcmp(back.data(), expected, row_bytes) == 0);
      }
    }
  }
}

TEST_CASE("a tile of Q4_K keeps 16 rows of each field together") {
  std::vector<BlockQ4_K> rows(16);
  for (size_t r = 0; r < 16; ++r) {
    rows[r].d = static_cast<uint16_t>(100 + r);
    rows[r].scales[3] = static_cast<uint8_t>(r);
    for (size_t i = 0; i < 4; ++i) rows[r].qs[4 + i] = static_cast<uint8_t>(16 * i + r);
  }
  std::vector<std::byte> tile(16 * sizeof(BlockQ4_K));
  PackGroup(DType::kQ4_K, reinterpret_cast<const std::byte*>(rows.data()), sizeof(BlockQ4_K), 16,
            256, tile.data());
  for (size_t r = 0; r < 16; ++r) {
    uint16_t d;
    std::memcpy(&d, tile.data() + 2 * r, 2);
    CHECK(d == 100 + r);
    CHECK(static_cast<size_t>(tile[16 * 4 + 3 * 16 + r]) == r);
    for (size_t i = 0; i < 4; ++i) {
      CHECK(static_cast<size_t>(tile[16 * 16 + 64 + 4 * r + i]) == 16 * i + r);
    }
  }
}

}  // namespace edgewise
