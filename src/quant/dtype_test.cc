#include "quant/dtype.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "quant/blocks.h"

namespace edgewise {
namespace {

TEST_CASE("names and GGUF numbers lead back to their row") {
  CHECK(AllDTypes().size() == kDTypeCount);
  for (const DTypeInfo& row : AllDTypes()) {
    CAPTURE(std::string(row.name));
    CHECK(&Info(row.id) == &row);
    CHECK(DTypeFromName(row.name) == row.id);
    std::string upper = row.name;
    for (char& c : upper) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
    CHECK(DTypeFromName(upper) == row.id);
    CHECK(DTypeFromGgufId(static_cast<uint32_t>(row.gguf_id)) == row.id);
    CHECK((row.decode != nullptr));
  }
  CHECK(DTypeFromName("Q4_K") == DType::kQ4_K);
  CHECK_FALSE(DTypeFromName("q4").has_value());
  CHECK_FALSE(DTypeFromName("").has_value());
  CHECK_FALSE(DTypeFromGgufId(4).has_value());
  CHECK_FALSE(DTypeFromGgufId(0xFFFFFFFFu).has_value());
}

TEST_CASE("block bytes are the sizes of the structs") {
  CHECK(Info(DType::kQ4_0).block_bytes == sizeof(BlockQ4_0));
  CHECK(Info(DType::kQ4_1).block_bytes == sizeof(BlockQ4_1));
  CHECK(Info(DType::kQ5_0).block_bytes == sizeof(BlockQ5_0));
  CHECK(Info(DType::kQ5_1).block_bytes == sizeof(BlockQ5_1));
  CHECK(Info(DType::kQ8_0).block_bytes == sizeof(BlockQ8_0));
  CHECK(Info(DType::kQ2_K).block_bytes == sizeof(BlockQ2_K));
  CHECK(Info(DType::kQ3_K).block_bytes == sizeof(BlockQ3_K));
  CHECK(Info(DType::kQ4_K).block_bytes == sizeof(BlockQ4_K));
  CHECK(Info(DType::kQ5_K).block_bytes == sizeof(BlockQ5_K));
  CHECK(Info(DType::kQ6_K).block_bytes == sizeof(BlockQ6_K));
  CHECK(Info(DType::kIQ4_NL).block_bytes == sizeof(BlockIQ4_NL));
  CHECK(Info(DType::kIQ4_XS).block_bytes == sizeof(BlockIQ4_XS));
  CHECK(Info(DType::kS24_Q4).block_bytes == sizeof(BlockS24_Q4));
  CHECK(Info(DType::kS24_Q8).block_bytes == sizeof(BlockS24_Q8));
  CHECK(Info(DType::kBM_Q4).block_bytes == sizeof(BlockBM_Q4));
  CHECK(Info(DType::kBM_Q8).block_bytes == sizeof(BlockBM_Q8));
  CHECK(Info(DType::kS24_Q4).bits_per_weight() == 3.25);
  CHECK(Info(DType::kS24_Q8).bits_per_weight() == 5.25);
  CHECK(Info(DType::kBM_Q4).bits_per_weight() == 3.25);
  CHECK(Info(DType::kBM_Q8).bits_per_weight() == 5.25);
  CHECK(Info(DType::kQ4_K).bits_per_weight() == 4.5);
  CHECK(Info(DType::kQ6_K).RowBytes(2048) == 8 * 210);
  CHECK(Info(DType::kF32).RowBytes(0) == 0);
}

template <class T>
std::vector<float> Decode(DType type, const std::vector<T>& stored, size_t n = 0) {
  std::vector<float> values(n == 0 ? stored.size() : n);
  Info(type).decode(stored.data(), values.data(), values.size());
  return values;
}

TEST_CASE("plain numbers decode to their values") {
  CHECK(Decode<int8_t>(DType::kI8, {-128, 0, 127}) == std::vector<float>{-128, 0, 127});
  CHECK(Decode<int16_t>(DType::kI16, {-32768, 5}) == std::vector<float>{-32768, 5});
  CHECK(Decode<int32_t>(DType::kI32, {-7, 1 << 24}) == std::vector<float>{-7, 16777216});
  CHECK(Decode<int64_t>(DType::kI64, {-7, int64_t{1} << 40}) ==
        std::vector<float>{-7, 1099511627776.0f});
  CHECK(Decode<double>(DType::kF64, {-0.5, 1e10}) == std::vector<float>{-0.5f, 1e10f});
  CHECK(Decode<uint16_t>(DType::kF16, {0x3C00, 0x8001}) ==
        std::vector<float>{1.0f, -5.9604644775390625e-8f});
  CHECK(Decode<uint16_t>(DType::kBF16, {0x3F80, 0xC040}) == std::vector<float>{1.0f, -3.0f});
}

// Where the offset tables of blocks.h put the code of an element: its value with d = 1 and each
// group scale 1, after one bit is set.
TEST_CASE("super-block codes lie where blocks.h says") {
  BlockQ4_K q4 = {};
  q4.d = 0x3C00;
  q4.dmin = 0x3C00;
  for (int g = 0; g < 4; ++g) {
    q4.scales[g] = 1;      // scale of group g
    q4.scales[g + 8] = 1;  // and of group g + 4
  }
  q4.scales[6] = 0x80 | 5;   // min 5 in group 2; bits 4-5 of the min of group 6 are 2
  q4.qs[32 * 2 + 7] = 0x90;  // element 128 + 32 + 7
  std::vector<float> expected(256);
  for (int j = 64; j < 96; ++j) expected[j] = -5;
  for (int j = 192; j < 224; ++j) expected[j] = -32;
  expected[167] = 9;
  CHECK(Decode<BlockQ4_K>(DType::kQ4_K, {q4}, 256) == expected);

  BlockQ6_K q6 = {};
  q6.d = 0x3C00;
  for (int8_t& scale : q6.scales) scale = 1;
  q6.scales[15] = -2;
  q6.ql[64 + 40] = 0x30;  // elements 128 + 40 (0) and 128 + 64 + 40 (3)
  q6.qh[32 + 31] = 0x80;  // element 128 + 96 + 31
  expected.assign(256, -32);
  for (int j = 240; j < 256; ++j) expected[j] = 64;
  expected[232] = -29;
  expected[255] = 0;
  CHECK(Decode<BlockQ6_K>(DType::kQ6_K, {q6}, 256) == expected);

  BlockQ3_K q3 = {};
  q3.d = 0x3C00;
  q3.scales[1] = 0x0F;   // group 1: 15 - 32, group 9: -32
  q3.scales[10] = 0xC0;  // group 14: 48 - 32
  q3.hmask[20] = 0x82;   // elements 32 + 20 and 128 + 96 + 20
  q3.qs[32 + 20] = 0xC0;
  const std::vector<float> values = Decode<BlockQ3_K>(DType::kQ3_K, {q3}, 256);
  CHECK(values[0] == 128);
  CHECK(values[16] == 17 * 4);
  CHECK(values[52] == 0);
  CHECK(values[224] == -64);
  CHECK(values[244] == -32 * 3);
}

TEST_CASE("wide floats survive a round trip and 16-bit ones stay finite") {
  const std::vector<float> values = {0.0f, -1.5f, 3.0e38f, -1e-42f, 70000.0f};
  std::vector<unsigned char> bytes(values.size() * 8);
  for (const DType type : {DType::kF32, DType::kF64}) {
    std::vector<float> back(values.size());
    Info(type).encode(values.data(), nullptr, bytes.data(), values.size());
    Info(type).decode(bytes.data(), back.data(), values.size());
    CHECK(back == values);
  }
  const float huge[] = {std::numeric_limits<float>::max(), std::numeric_limits<float>::lowest()};
  float back[2];
  Info(DType::kF16).encode(huge, nullptr, bytes.data(), 2);
  Info(DType::kF16).decode(bytes.data(), back, 2);
  CHECK(back[0] == 65504.0f);
  CHECK(back[1] == -65504.0f);
  Info(DType::kBF16).encode(huge, nullptr, bytes.data(), 2);
  Info(DType::kBF16).decode(bytes.data(), back, 2);
  CHECK(back[0] == 0x1.FEp127f);
  CHECK(back[1] == -0x1.FEp127f);
}

}  // namespace
}  // namespace edgewise
