#include "train/moments.h"

#include <doctest/doctest.h>

#include <cmath>

#include "base/rng.h"

namespace edgewise::train {
namespace {

TEST_CASE("the grids rise from -1 or 0 to 1 and hold 0") {
  for (const bool is_signed : {true, false}) {
    const MomentGrid& grid = is_signed ? MomentGrid::Signed() : MomentGrid::Unsigned();
    for (int code = 1; code < 256; ++code) {
      CHECK(grid.Decode(static_cast<uint8_t>(code)) > grid.Decode(static_cast<uint8_t>(code - 1)));
    }
    CHECK(grid.Decode(255) == 1);
    CHECK(grid.Decode(grid.Encode(0)) == 0);
    CHECK(grid.Decode(0) == doctest::Approx(is_signed ? -0.9930 : 0).epsilon(1e-3));
    for (int code = 0; code < 256; ++code) {
      const auto c = static_cast<uint8_t>(code);
      CHECK(grid.Encode(grid.Decode(c)) == c);
    }
  }
}

TEST_CASE("a value becomes the nearest of the grid") {
  Rng rng(1);
  for (int i = 0; i < 20000; ++i) {
    const double magnitude =
        std::pow(10, -8 * static_cast<double>(rng.Below(1u << 24)) / (1 << 24));
    for (const bool is_signed : {true, false}) {
      const MomentGrid& grid = is_signed ? MomentGrid::Signed() : MomentGrid::Unsigned();
      const auto x = static_cast<float>(is_signed && i % 2 == 0 ? -magnitude : magnitude);
      const float chosen = grid.Decode(grid.Encode(x));
      float nearest = INFINITY;
      for (int code = 0; code < 256; ++code) {
        const float value = grid.Decode(static_cast<uint8_t>(code));
        if (!is_signed && value == 0) continue;  // kept for what is exactly 0
        nearest = std::min(nearest, std::fabs(value - x));
      }
      CHECK(std::fabs(chosen - x) <= nearest * 1.0001f);
      if (!is_signed) CHECK(chosen > 0);
    }
  }
}

TEST_CASE("blocks come back within a hundredth of their largest value") {
  Rng rng(2);
  float values[kMomentBlock], back[kMomentBlock];
  uint8_t codes[kMomentBlock];
  for (float& value : values) value = 1e-5f * (static_cast<float>(rng.Below(2001)) - 1000) / 1000;
  values[7] = 0;
  const MomentGrid& grid = MomentGrid::Signed();
  const float scale = grid.EncodeBlock(values, kMomentBlock, codes);
  grid.DecodeBlock(codes, scale, kMomentBlock, back);
  for (size_t i = 0; i < kMomentBlock; ++i) CHECK(std::fabs(back[i] - values[i]) <= 0.01f * scale);
  CHECK(back[7] == 0);
  // Nothing but zeros, and values too small for a reciprocal.
  for (const float all : {0.0f, 1e-40f}) {
    std::fill_n(values, 3, all);
    grid.DecodeBlock(codes, grid.EncodeBlock(values, 3, codes), 3, back);
    CHECK(back[2] == all);
  }
}

TEST_CASE("formats have names") {
  CHECK(*ParseMomentFormat("8bit") == MomentFormat::k8Bit);
  CHECK(*ParseMomentFormat("f32") == MomentFormat::kF32);
  CHECK(!ParseMomentFormat("4bit").has_value());
}

}  // namespace
}  // namespace edgewise::train
