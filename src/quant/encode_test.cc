// Properties that every encoder must have on any data: finite, exact where it can be, never worse
// than plain rounding, led by the weights, independent of how the work is cut.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "base/half.h"
#include "quant/blocks.h"
#include "quant/dtype.h"

namespace edgewise {
namespace {

using Values = std::vector<float>;

std::vector<DType> Encoded() {
  std::vector<DType> types;
  for (const DTypeInfo& row : AllDTypes()) {
    if (row.quantized()) types.push_back(row.id);
  }
  return types;
}

std::vector<uint8_t> Encode(DType type, const Values& x, const float* weights = nullptr) {
  std::vector<uint8_t> bytes(Info(type).RowBytes(x.size()));
  Info(type).encode(x.data(), weights, bytes.data(), x.size());
  return bytes;
}

Values Decode(DType type, const std::vector<uint8_t>& bytes, size_t n) {
  Values values(n);
  Info(type).decode(bytes.data(), values.data(), n);
  return values;
}

Values RoundTrip(DType type, const Values& x, const float* weights = nullptr) {
  return Decode(type, Encode(type, x, weights), x.size());
}

double Error(const Values& x, const Values& y, const float* weights = nullptr) {
  double error = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double r = double{x[i]} - y[i];
    error += r * r * (weights == nullptr ? 1.0 : weights[i]);
  }
  return error;
}

// A number in [0, 1) made from raw bits: the same on every platform.
float Uniform(std::mt19937& rng) { return static_cast<float>(rng() >> 8) * 0x1p-24f; }

float Normal(std::mt19937& rng) {
  float sum = -6.0f;
  for (int i = 0; i < 12; ++i) sum += Uniform(rng);
  return sum;
}

struct NamedData {
  std::string name;
  Values x;
};

std::vector<NamedData> Data() {
  constexpr size_t kSize = 256 * 5;
  std::mt19937 rng(7);
  const auto make = [&](std::string name, auto value) {
    Values x(kSize);
    for (float& v : x) v = value();
    return NamedData{std::move(name), std::move(x)};
  };
  std::vector<NamedData> data;
  data.push_back(make("normal", [&] { return 0.02f * Normal(rng); }));
  data.push_back(make("student-t", [&] {
    const float a = Normal(rng), b = Normal(rng), c = Normal(rng);
    return Normal(rng) / std::sqrt((a * a + b * b + c * c) / 3 + 1e-3f);
  }));
  data.push_back(make("uniform", [&] { return Uniform(rng); }));
  data.push_back(make("negative", [&] { return -1.0f - 0.1f * Uniform(rng); }));
  data.push_back(make("offset", [&] { return 100.0f + Normal(rng); }));
  data.push_back(make("constant", [] { return 0.37f; }));
  data.push_back(make("zero", [] { return 0.0f; }));
  data.push_back(make("tiny", [&] { return 1e-30f * Normal(rng); }));
  data.push_back(make("float subnormal", [&] { return 1e-40f * Normal(rng); }));
  data.push_back(make("subnormal scale", [&] { return 1e-6f * Normal(rng); }));
  data.push_back(make("smallest scale", [&] { return 2e-7f * Normal(rng); }));
  data.push_back(make("huge", [&] { return 1e30f * Normal(rng); }));
  data.push_back(make("largest", [&] { return rng() % 2 ? 3.4e38f : -3.4e38f; }));
  data.push_back(make("beyond half", [&] { return 1e6f * Normal(rng); }));
  data.push_back(make("sparse", [&] { return rng() % 8 == 0 ? Normal(rng) : 0.0f; }));
  data.push_back(make("outlier", [&] { return 0.01f * Normal(rng); }));
  data.back().x[300] = 5.0f;
  data.push_back(make("wide range of groups", [&] { return Normal(rng); }));
  for (size_t i = 0; i < kSize; ++i)
    data.back().x[i] *= std::ldexp(1.0f, static_cast<int>(i / 32 % 16) - 14);
  return data;
}

float FiniteHalf(float value) {
  return HalfToFloat(FloatToHalf(std::clamp(value, -65504.0f, 65504.0f)));
}

// The integers or table values that a format's codes stand for, times a scale.
struct Plain {
  DType type;
  float low, high;              // grid; low = 0 for formats with a minimum
  size_t group;                 // values that share a scale
  float scale_low, scale_high;  // integer group scales of super-blocks; 0, 0 for plain halves
};

constexpr Plain kPlain[] = {
    {DType::kQ4_0, -8, 7, 32, 0, 0},       {DType::kQ4_1, 0, 15, 32, 0, 0},
    {DType::kQ5_0, -16, 15, 32, 0, 0},     {DType::kQ5_1, 0, 31, 32, 0, 0},
    {DType::kQ8_0, -127, 127, 32, 0, 0},   {DType::kQ2_K, 0, 3, 16, 0, 15},
    {DType::kQ3_K, -4, 3, 16, -32, 31},    {DType::kQ4_K, 0, 15, 32, 0, 63},
    {DType::kQ5_K, 0, 31, 32, 0, 63},      {DType::kQ6_K, -32, 31, 16, -128, 127},
    {DType::kIQ4_NL, -127, 113, 32, 0, 0}, {DType::kIQ4_XS, -127, 113, 32, -32, 31},
};

float Nearest(const Plain& plain, float v) {
  if (plain.type != DType::kIQ4_NL && plain.type != DType::kIQ4_XS) {
    return std::nearbyint(std::clamp(v, plain.low, plain.high));
  }
  float best = kIq4NlValues[0];
  for (const int8_t value : kIq4NlValues) {
    if (std::abs(v - static_cast<float>(value)) < std::abs(v - best)) best = value;
  }
  return best;
}

float RoundScale(float value, float unit, float low, float high) {
  return unit == 0 ? 0 : unit * std::clamp(std::nearbyint(value / unit), low, high);
}

// Scale and minimum of a group, from its extremes.
struct Affine {
  float d, m;
};

Affine FromExtremes(const Plain& plain, const float* x) {
  const auto [low, high] = std::minmax_element(x, x + plain.group);
  if (plain.low != 0) return {(*high > -*low ? *high : *low) / plain.low, 0};
  const float m = plain.scale_high != 0 ? std::min(*low, 0.0f) : *low;
  return {*high / plain.high - m / plain.high, m};
}

// Rounds without any search; group scales of super-blocks become multiples of the largest's share.
Values PlainRounding(const Plain& plain, const Values& x) {
  const size_t block = Info(plain.type).block;
  const float end = plain.scale_low != 0 ? plain.scale_low : plain.scale_high;
  Values y(x.size());
  for (size_t i = 0; i < x.size(); i += block) {
    std::vector<Affine> groups;
    Affine largest = {0, 0};
    for (size_t g = i; g < i + block; g += plain.group) {
      groups.push_back(FromExtremes(plain, &x[g]));
      if (std::abs(groups.back().d) > std::abs(largest.d)) largest.d = groups.back().d;
      largest.m = std::min(largest.m, groups.back().m);
    }
    for (size_t j = 0; j < block; ++j) {
      Affine a = groups[j / plain.group];
      if (end == 0) {
        a = {FiniteHalf(a.d), FiniteHalf(a.m)};
      } else {
        a.d = RoundScale(a.d, FiniteHalf(largest.d / end), plain.scale_low, plain.scale_high);
        a.m = -RoundScale(-a.m, FiniteHalf(-largest.m / end), 0, plain.scale_high);
      }
      y[i + j] = a.d == 0 ? a.m : a.m + a.d * Nearest(plain, (x[i + j] - a.m) / a.d);
    }
  }
  return y;
}

TEST_CASE("the error is finite and never above that of plain rounding") {
  for (const NamedData& data : Data()) {
    for (const Plain& plain : kPlain) {
      CAPTURE(data.name);
      CAPTURE(std::string(Info(plain.type).name));
      const Values y = RoundTrip(plain.type, data.x);
      CHECK(std::all_of(y.begin(), y.end(), [](float v) { return std::isfinite(v); }));
      CHECK(Error(data.x, y) <= Error(data.x, PlainRounding(plain, data.x)) * (1 + 1e-5));
    }
  }
}

TEST_CASE("zeros stay zero and a constant keeps the precision of a half") {
  for (const DType type : Encoded()) {
    CAPTURE(std::string(Info(type).name));
    const Values zeros(512);
    CHECK(RoundTrip(type, zeros) == zeros);
    if (Info(type).sparse()) continue;  // half of a constant goes
    const Values constant(512, -0.37f);
    CHECK(std::sqrt(Error(constant, RoundTrip(type, constant)) / 512) < 0.37 * 0x1p-10);
  }
}

TEST_CASE("weights lower the weighted error") {
  std::mt19937 rng(11);
  Values x(256 * 16), weights(x.size());
  for (float& v : x) v = Normal(rng);
  for (float& w : weights) w = std::exp(2.0f * Normal(rng));
  for (const DType type : Encoded()) {
    CAPTURE(std::string(Info(type).name));
    const double plain = Error(x, RoundTrip(type, x), weights.data());
    CHECK(Error(x, RoundTrip(type, x, weights.data()), weights.data()) < 0.97 * plain);
  }
}

TEST_CASE("the scale of the weights does not matter, nor do zero or extreme ones harm") {
  std::mt19937 rng(12);
  Values x(512), weights(512);
  for (float& v : x) v = Normal(rng);
  for (float& w : weights) w = 0.1f + Uniform(rng);
  for (const DType type : Encoded()) {
    CAPTURE(std::string(Info(type).name));
    Values large = weights, zeros(512), mixed = weights;
    for (float& w : large) w *= 0x1p80f;
    for (size_t i = 0; i < 64; ++i) mixed[i] = 0;
    mixed[100] = 3e38f;
    mixed[101] = 1e-45f;
    CHECK(Encode(type, x, weights.data()) == Encode(type, x, large.data()));
    CHECK(Encode(type, x, zeros.data()) == Encode(type, x));
    const Values y = RoundTrip(type, x, mixed.data());
    CHECK(std::all_of(y.begin(), y.end(), [](float v) { return std::isfinite(v); }));
    CHECK(std::abs(y[100] - x[100]) < 0.1f);
  }
}

TEST_CASE("unit weights equal no weights in error") {
  std::mt19937 rng(13);
  Values x(1024);
  for (float& v : x) v = Normal(rng);
  const Values ones(x.size(), 1.0f);
  for (const DType type : Encoded()) {
    CAPTURE(std::string(Info(type).name));
    const double none = Error(x, RoundTrip(type, x));
    CHECK(Error(x, RoundTrip(type, x, ones.data())) == doctest::Approx(none).epsilon(0.01));
  }
}

TEST_CASE("blocks do not depend on their neighbours") {
  std::mt19937 rng(14);
  Values x(256 * 3);
  for (float& v : x) v = Normal(rng);
  for (const DType type : Encoded()) {
    CAPTURE(std::string(Info(type).name));
    const std::vector<uint8_t> whole = Encode(type, x);
    std::vector<uint8_t> pieces;
    const size_t block = Info(type).block;
    for (size_t i = 0; i < x.size(); i += block) {
      const std::vector<uint8_t> piece = Encode(type, Values(x.begin() + i, x.begin() + i + block));
      pieces.insert(pieces.end(), piece.begin(), piece.end());
    }
    CHECK(whole == pieces);
  }
}

TEST_CASE("encoding decoded values again adds under a tenth of the squared error") {
  std::mt19937 rng(15);
  Values x(256 * 8);
  for (float& v : x) v = Normal(rng);
  for (const DType type : Encoded()) {
    CAPTURE(std::string(Info(type).name));
    const Values once = RoundTrip(type, x);
    const Values twice = RoundTrip(type, once);
    CHECK(Error(once, twice) < 0.1 * Error(x, once));
  }
}

}  // namespace
}  // namespace edgewise
