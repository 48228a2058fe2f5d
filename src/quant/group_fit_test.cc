#include "quant/group_fit.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/half.h"
#include "base/rng.h"

namespace edgewise::quant {
namespace {

struct Fitted {
  std::vector<uint16_t> scales;
  std::vector<uint8_t> zeros, codes;
};

Fitted Fit(const std::vector<float>& values, size_t columns, size_t group, const GroupGrid& grid,
           const float* weights = nullptr) {
  Fitted fitted;
  fitted.scales.resize(values.size() / group);
  fitted.zeros.resize(values.size() / group);
  fitted.codes.resize(values.size());
  FitGroups(values, columns, group, weights, grid, fitted.scales.data(), fitted.zeros.data(),
            fitted.codes.data());
  return fitted;
}

double Error(const std::vector<float>& values, size_t group, const Fitted& fitted,
             const std::vector<float>& weights = {}) {
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double scale = static_cast<double>(HalfToFloat(fitted.scales[i / group]));
    const double decoded = scale * (fitted.codes[i] - fitted.zeros[i / group]);
    const double error = decoded - static_cast<double>(values[i]);
    sum +=
        error * error * (weights.empty() ? 1.0 : static_cast<double>(weights[i % weights.size()]));
  }
  return sum;
}

// Plain rounding of each group: the range of the data over all codes.
Fitted Plain(const std::vector<float>& values, size_t group, const GroupGrid& grid) {
  Fitted fitted;
  const float highest = static_cast<float>((1u << grid.bits) - 1);
  for (size_t begin = 0; begin < values.size(); begin += group) {
    float low = 0, high = 0;
    for (size_t i = begin; i < begin + group; ++i) {
      low = std::min(low, values[i]);
      high = std::max(high, values[i]);
    }
    if (grid.symmetric) {
      high = std::max(high, -low);
      low = -high;
    }
    const float scale = HalfToFloat(FloatToHalf((high - low) / highest));
    const float zero = grid.symmetric ? static_cast<float>(1u << (grid.bits - 1))
                                      : std::clamp(std::round(-low / scale),
                                                   static_cast<float>(grid.lowest_zero), highest);
    fitted.scales.push_back(FloatToHalf(scale));
    fitted.zeros.push_back(static_cast<uint8_t>(zero));
    for (size_t i = begin; i < begin + group; ++i) {
      const float code = std::round(values[i] / scale) + zero;
      fitted.codes.push_back(static_cast<uint8_t>(std::clamp(code, 0.0f, highest)));
    }
  }
  return fitted;
}

std::vector<float> Normal(size_t n, uint64_t seed, double mean = 0) {
  Rng rng(seed);
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(mean + 0.1 * rng.Gaussian());
  return values;
}

TEST_CASE("the search beats plain rounding at every width") {
  const auto values = Normal(40 * 128, 1);
  for (const uint32_t bits : {2u, 3u, 4u, 8u}) {
    for (const bool symmetric : {true, false}) {
      CAPTURE(bits);
      CAPTURE(symmetric);
      const GroupGrid grid{bits, symmetric, 1};
      const Fitted fitted = Fit(values, 256, 128, grid);
      for (const uint8_t zero : fitted.zeros) {
        CHECK(zero >= 1);
        if (symmetric) CHECK(zero == 1 << (bits - 1));
      }
      for (const uint8_t code : fitted.codes) CHECK(code < 1u << bits);
      CHECK(Error(values, 128, fitted) < Error(values, 128, Plain(values, 128, grid)));
    }
  }
}

TEST_CASE("values on a grid come back exactly") {
  Rng rng(3);
  std::vector<float> values;
  for (int i = 0; i < 12 * 64; ++i) {
    const float scale = 0.0625f * static_cast<float>(i / 64 + 1);
    // Every code occurs.
    const uint64_t code = i % 64 < 16 ? static_cast<uint64_t>(i % 16) : rng.Below(16);
    values.push_back(scale * (static_cast<float>(code) - 5.0f));
  }
  CHECK(Error(values, 64, Fit(values, 64, 64, {4, false, 0})) == 0);
  for (float& value : values) value = std::max(value, 0.0f);
  CHECK(Error(values, 64, Fit(values, 64, 64, {4, true, 0})) > 0);
}

TEST_CASE("a group's result depends on nothing else") {
  const auto values = Normal(11 * 96, 5, 0.05);
  const GroupGrid grid{4, false, 1};
  const Fitted all = Fit(values, 96, 32, grid);
  for (size_t g = 0; g < 33; ++g) {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(g * 32);
    const Fitted one = Fit({begin, begin + 32}, 32, 32, grid);
    CHECK(one.scales[0] == all.scales[g]);
    CHECK(one.zeros[0] == all.zeros[g]);
    CHECK(std::equal(one.codes.begin(), one.codes.end(),
                     all.codes.begin() + static_cast<std::ptrdiff_t>(g * 32)));
  }
}

TEST_CASE("weights move the error to where it matters least") {
  const auto values = Normal(64 * 128, 7);
  std::vector<float> weights(128, 0.01f);
  for (size_t i = 0; i < 16; ++i) weights[i * 8] = 1.0f;
  for (const bool symmetric : {true, false}) {
    const GroupGrid grid{3, symmetric, 0};
    const Fitted plain = Fit(values, 128, 128, grid);
    const Fitted weighted = Fit(values, 128, 128, grid, weights.data());
    CHECK(Error(values, 128, weighted, weights) < 0.9 * Error(values, 128, plain, weights));
  }
}

TEST_CASE("zeros, tiny and huge values stay finite") {
  for (const float value : {0.0f, 1e-30f, 1e-7f, 3e38f}) {
    for (const bool symmetric : {true, false}) {
      std::vector<float> values(64, value);
      values[3] = -value;
      const Fitted fitted = Fit(values, 64, 32, {4, symmetric, 1});
      for (const uint16_t scale : fitted.scales) CHECK(std::isfinite(HalfToFloat(scale)));
      for (const uint8_t code : fitted.codes) CHECK(code < 16);
      if (value == 0) CHECK(Error(values, 32, fitted) == 0);
    }
  }
}

}  // namespace
}  // namespace edgewise::quant
