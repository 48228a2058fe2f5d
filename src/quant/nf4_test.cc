// NF4 and double quantization against the published constants of bitsandbytes.
#include "quant/nf4.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/rng.h"

namespace edgewise::quant {
namespace {

// The thresholds of dQuantizeNF4 in bitsandbytes' csrc/kernels.cu: above one begins the next code.
constexpr float kThresholds[15] = {
    -0.8480964004993439f,  -0.6106329262256622f,  -0.4599952697753906f,   -0.33967943489551544f,
    -0.23460740596055984f, -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f,
    0.1202552504837513f,   0.2035212516784668f,   0.2920137718319893f,    0.3893125355243683f,
    0.5016634166240692f,   0.6427869200706482f,   0.8614784181118011f};

std::vector<float> Normal(size_t n, uint64_t seed, double deviation = 1.0) {
  Rng rng(seed);
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(deviation * rng.Gaussian());
  return values;
}

TEST_CASE("NF4 codes change just above the published thresholds") {
  for (int i = 0; i < 15; ++i) {
    CAPTURE(i);
    CHECK(Nf4Code(kThresholds[i]) == i);
    CHECK(Nf4Code(std::nextafter(kThresholds[i], 2.0f)) == i + 1);
  }
  for (size_t i = 0; i < 15; ++i) {
    CHECK(kThresholds[i] == doctest::Approx((kNf4Values[i] + kNf4Values[i + 1]) / 2).epsilon(1e-6));
  }
  for (int i = 0; i < 16; ++i) CHECK(Nf4Code(kNf4Values[static_cast<size_t>(i)]) == i);
  CHECK(Nf4Code(std::numeric_limits<float>::quiet_NaN()) == 0);
}

TEST_CASE("NF4 blocks: the first code in the high nibble, a magnitude for each 64 values") {
  std::vector<float> values(64 + 3, 0.0f);
  values[0] = -2.0f;
  values[1] = 2.0f * 0.4407f;  // code 12
  values[64] = 0.5f;
  values[66] = -0.5f;
  std::vector<uint8_t> packed(34, 0xFF);
  float absmax[2] = {};
  EncodeNf4(values, packed.data(), absmax);
  CHECK(absmax[0] == 2.0f);
  CHECK(absmax[1] == 0.5f);
  CHECK(packed[0] == (0 << 4 | 12));
  CHECK(packed[1] == (7 << 4 | 7));
  CHECK(packed[32] == (15 << 4 | 7));
  CHECK(packed[33] == 0 << 4);
  std::vector<float> decoded(values.size());
  DecodeNibbles(packed.data(), kNf4Values, absmax, kNf4Block, values.size(), decoded.data());
  CHECK(decoded[0] == -2.0f);
  CHECK(decoded[1] == 2.0f * 0.44070982933044434f);
  CHECK(decoded[2] == 0.0f);
  CHECK(decoded[64] == 0.5f);
  CHECK(decoded[66] == -0.5f);
}

TEST_CASE("an NF4 block of zeros stays zero") {
  const std::vector<float> values(128, 0.0f);
  std::vector<uint8_t> packed(64);
  float absmax[2] = {1, 1};
  EncodeNf4(values, packed.data(), absmax);
  std::vector<float> decoded(128, 1.0f);
  DecodeNibbles(packed.data(), kNf4Values, absmax, kNf4Block, 128, decoded.data());
  CHECK(std::all_of(decoded.begin(), decoded.end(), [](float v) { return v == 0; }));
}

// The construction as published, in doubles: decades of means of the ends of even intervals.
std::vector<double> PublishedDynamicMap() {
  std::vector<double> data;
  for (int i = 0; i < 7; ++i) {
    const int items = (1 << i) + 1;
    for (int k = 0; k + 1 < items; ++k) {
      const double a = 0.1 + 0.9 * k / (items - 1), b = 0.1 + 0.9 * (k + 1) / (items - 1);
      data.push_back(std::pow(10.0, -6 + i) * (a + b) / 2);
      data.push_back(-data.back());
    }
  }
  data.push_back(0);
  data.push_back(1);
  std::sort(data.begin(), data.end());
  return data;
}

TEST_CASE("the dynamic map is the published one") {
  const auto map = DynamicMap();
  const auto published = PublishedDynamicMap();
  REQUIRE(published.size() == 256);
  for (size_t i = 0; i < 256; ++i) {
    CAPTURE(i);
    CHECK(std::abs(static_cast<double>(map[i]) - published[i]) <= 2e-7 * std::abs(published[i]));
  }
  CHECK(map[0] == -0.99296875f);
  CHECK(map[127] == 0.0f);
  CHECK(map[128] == doctest::Approx(5.5e-7));
  CHECK(map[254] == 0.99296875f);
  CHECK(map[255] == 1.0f);
}

TEST_CASE("dynamic codes are the nearest ones") {
  const auto map = DynamicMap();
  for (size_t i = 0; i < 256; ++i) CHECK(DynamicCode(map[i], map) == i);
  for (const float x : Normal(2000, 3, 0.3)) {
    const float clipped = std::clamp(x, -1.0f, 1.0f);
    const float found = std::abs(map[DynamicCode(clipped, map)] - clipped);
    for (const float value : map) CHECK(found <= std::abs(value - clipped) * 1.000001f);
  }
  CHECK(DynamicCode(std::numeric_limits<float>::quiet_NaN(), map) == 0);
}

TEST_CASE("magnitudes in 8 bits come back within the map's step") {
  const auto map = DynamicMap();
  std::vector<float> absmax = Normal(700, 5, 0.1);
  for (float& value : absmax) value = 1.0f + value;
  const NestedAbsmax nested = NestAbsmax(absmax, map);
  REQUIRE(nested.codes.size() == 700);
  REQUIRE(nested.scales.size() == 3);
  double sum = 0;
  for (const float value : absmax) sum += static_cast<double>(value);
  CHECK(nested.offset == static_cast<float>(sum / 700));
  const auto decoded = DecodeAbsmax(nested.codes, map, nested.scales, kAbsmaxBlock, nested.offset);
  for (size_t i = 0; i < absmax.size(); ++i) {
    CHECK(std::abs(decoded[i] - absmax[i]) < 0.0075f * nested.scales[i / 256]);
    const float product = map[nested.codes[i]] * nested.scales[i / 256];
    CHECK(decoded[i] == product + nested.offset);
  }
  const std::vector<float> same(5, 0.25f);
  const NestedAbsmax constant = NestAbsmax(same, map);
  for (const float value : DecodeAbsmax(constant.codes, map, constant.scales, 256, constant.offset))
    CHECK(value == 0.25f);
}

}  // namespace
}  // namespace edgewise::quant
