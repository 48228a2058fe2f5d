#include "base/half.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

namespace edgewise {
namespace {

// The value of a half by its definition (IEEE 754 binary16).
double HalfValue(uint16_t h) {
  const int exponent = (h >> 10) & 31;
  const int mantissa = h & 1023;
  const double sign = h >> 15 ? -1 : 1;
  if (exponent == 31)
    return mantissa ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST_CASE("every half decodes to its value and encodes back") {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto h = static_cast<uint16_t>(i);
    const float value = HalfToFloat(h);
    if (std::isnan(HalfValue(h))) {
      CHECK(std::isnan(value));
      CHECK(std::isnan(HalfToFloat(FloatToHalf(value))));
      continue;
    }
    REQUIRE(static_cast<double>(value) == HalfValue(h));
    REQUIRE(std::signbit(value) == (h >> 15 != 0));
    REQUIRE(FloatToHalf(value) == h);
  }
}

TEST_CASE("halves round to nearest, ties to even") {
  for (uint16_t h = 0; h < 0x7BFF; ++h) {
    const float low = HalfToFloat(h), high = HalfToFloat(static_cast<uint16_t>(h + 1));
    const float middle = (low + high) / 2;
    const uint16_t even = h % 2 == 0 ? h : static_cast<uint16_t>(h + 1);
    REQUIRE(FloatToHalf(middle) == even);
    REQUIRE(FloatToHalf(std::nextafter(middle, 0.0f)) == h);
    REQUIRE(FloatToHalf(std::nextafter(middle, 1e9f)) == h + 1);
  }
  CHECK(FloatToHalf(65519.996f) == 0x7BFF);
  CHECK(FloatToHalf(65520.0f) == 0x7C00);
  CHECK(FloatToHalf(-1e30f) == 0xFC00);
}

TEST_CASE("bfloat16 rounds to nearest even and keeps NaN") {
  for (uint32_t i = 0; i < 65536; ++i) {
    const float value = Bf16ToFloat(static_cast<uint16_t>(i));
    if (std::isnan(value)) {
      CHECK(std::isnan(Bf16ToFloat(FloatToBf16(value))));
    } else {
      REQUIRE(FloatToBf16(value) == i);
    }
  }
  CHECK(FloatToBf16(1.00390625f) == 0x3F80);  // halfway between 1 and the next: to even
  CHECK(FloatToBf16(1.01171875f) == 0x3F82);
}

}  // namespace
}  // namespace edgewise
