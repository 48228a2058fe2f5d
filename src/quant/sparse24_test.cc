// The S24 formats: their bytes, which values they keep, and what they cost.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "quant/blocks.h"
#include "quant/dtype.h"
#include "quant/test_sparse.h"

namespace edgewise {
namespace {

constexpr DType kSparse[] = {DType::kS24_Q4, DType::kS24_Q8};

// The larger two of each four; of equal ones, the first.
Values PrunedByMagnitude(const Values& x) {
  Values pruned(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    int before = 0;
    for (size_t j = i / 4 * 4; j < i / 4 * 4 + 4; ++j) {
      const float mine = std::fabs(x[i]), other = std::fabs(x[j]);
      before += other > mine || (other == mine && j < i);
    }
    if (before < 2) pruned[i] = x[i];
  }
  return pruned;
}

// Rounds each 64 values with the scale that takes the largest of them to `end`.
Values RoundedToLargest(const Values& x, float low, float high, float end) {
  Values y(x.size());
  for (size_t b = 0; b < x.size(); b += 64) {
    float largest = 0;
    for (size_t i = b; i < b + 64; ++i) {
      if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
    }
    const float d = HalfToFloat(FloatToHalf(largest / end));
    for (size_t i = b; i < b + 64 && d != 0; ++i) {
      y[i] = d * std::clamp(std::nearbyint(x[i] / d), low, high);
    }
  }
  return y;
}

}  // namespace

TEST_CASE("codes and positions of S24 lie where blocks.h says") {
  BlockS24_Q4 q4 = {};
  q4.d = kOne;
  q4.at[1] = 0x0C;  // kept value 5 at element 3 of elements 8 to 11
  q4.qs[1] = 0x70;  // its code 7
  q4.at[7] = 0x80;  // kept value 31 at element 2 of elements 60 to 63
  q4.qs[15] = 0x80;
  q4.qs[8] = 0x0F;  // kept value 16, first of elements 32 to 35: -1
  Values expected(64);
  expected[11] = 7;
  expected[62] = -8;
  expected[32] = -1;
  CHECK(Decode(DType::kS24_Q4, q4) == expected);

  BlockS24_Q8 q8 = {};
  q8.d = kOne;
  q8.at[1] = 0x0C;
  q8.qs[5] = 100;
  q8.at[7] = 0x80;
  q8.qs[31] = -128;
  q8.qs[16] = -1;
  expected[11] = 100;
  expected[62] = -128;
  CHECK(Decode(DType::kS24_Q8, q8) == expected);

  q8.at[5] = 0;  // kept values 16 and 17, both at the first of their elements
  q8.qs[17] = -127;
  expected[32] = -128;
  CHECK(Decode(DType::kS24_Q8, q8) == expected);
}

TEST_CASE("a block of S24_Q4 has the bytes computed by hand") {
  Values x(64);
  x[1] = -4.0f, x[3] = 3.5f;  // kept values 0 and 1: codes -8 and 7 at scale 0.5
  x[6] = 1.0f;                // with the zero at element 4: kept 2 is 0, kept 3 is 2 at position 2
  for (size_t g = 8; g < 64; g += 4) x[g + 2] = 0.5f, x[g + 3] = -0.5f;
  BlockS24_Q4 block;
  Info(DType::kS24_Q4).encode(x.data(), nullptr, &block, 64);
  CHECK(block.d == 0x3800);
  // Bits 0-1 from step 0, positions 1 3 0 2; then always 2 3 2 3.
  const uint8_t at[8] = {0xA9, 0xFF, 0xA8, 0xFE, 0xAA, 0xFF, 0xAA, 0xFF};
  CHECK(std::memcmp(block.at, at, 8) == 0);
  // Codes 1 and 15 (-1) in turn, but for those of the first four: 8 (-8), 7, 0, 2.
  const uint8_t qs[16] = {0x18, 0xF7, 0x10, 0xF2, 0x11, 0xFF, 0x11, 0xFF,
                          0x11, 0xFF, 0x11, 0xFF, 0x11, 0xFF, 0x11, 0xFF};
  CHECK(std::memcmp(block.qs, qs, 16) == 0);
  CHECK(Decode(DType::kS24_Q4, block) == x);
}

TEST_CASE("S24 keeps the structure of values pruned before, whatever their size and weight") {
  Rng rng(2);
  Values x(64 * 40), weights(x.size());
  for (size_t g = 0; g < x.size(); g += 4) {
    for (uint64_t kept = rng.Below(3); kept > 0; --kept) {
      const float size = g % 64 == 0 ? 1.0f : std::ldexp(1.0f, -static_cast<int>(rng.Below(4)));
      x[g + rng.Below(4)] = rng.Below(2) ? size : -size;
    }
  }
  for (float& w : weights) w = rng.Below(3) ? static_cast<float>(rng.Uniform()) : 0.0f;
  for (const DType type : kSparse) {
    CAPTURE(std::string(Info(type).name));
    for (const float* by : {static_cast<float*>(nullptr), weights.data()}) {
      const Values y = RoundTrip(type, x, by);
      for (size_t i = 0; i < x.size(); ++i) {
        if (x[i] == 0) CHECK(y[i] == 0);
        if (std::fabs(x[i]) > 0.4f) CHECK(y[i] * x[i] > 0);
      }
      CHECK(RoundTrip(type, y) == y);
    }
  }
  // Beside a value that squares to zero in comparison, a true zero goes first.
  Values tiny(64);
  tiny[0] = 60000.0f;
  tiny[2] = 1e-30f;
  BlockS24_Q8 block;
  Info(DType::kS24_Q8).encode(tiny.data(), nullptr, &block, 64);
  CHECK((block.at[0] & 3) == 0);
  CHECK((block.at[1] & 3) == 2);
}

TEST_CASE("S24 keeps two of four in their order, those that weigh most") {
  const Values x = Random(64 * 20, 3);
  Values weights(x.size());
  Rng rng(4);
  for (float& w : weights) w = static_cast<float>(rng.Uniform());
  BlockS24_Q8 blocks[20];
  Info(DType::kS24_Q8).encode(x.data(), weights.data(), blocks, x.size());
  for (size_t k = 0; k < 32 * 20; k += 2) {
    int at[2];
    for (size_t i = 0; i < 2; ++i) {
      const size_t in_block = (k + i) % 32;
      const uint8_t byte = blocks[k / 32].at[4 * (in_block / 16) + in_block % 4];
      at[i] = (byte >> (2 * (in_block / 4 % 4))) & 3;
    }
    CHECK(at[0] < at[1]);
    const auto cost = [&](int position) {
      const size_t i = 2 * k + static_cast<size_t>(position);
      return static_cast<double>(weights[i] * x[i] * x[i]);
    };
    for (int other = 0; other < 4; ++other) {
      if (other == at[0] || other == at[1]) continue;
      CHECK(cost(other) <= std::min(cost(at[0]), cost(at[1])) + 2e-6 * 16);
    }
  }
}

TEST_CASE("S24 is no worse than pruning by magnitude and rounding to the largest") {
  for (uint64_t seed = 10; seed < 30; ++seed) {
    Values x = Random(64 * 8, seed);
    for (float& v : x) v *= std::ldexp(1.0f, static_cast<int>(seed) - 20);
    const Values pruned = PrunedByMagnitude(x);
    const double q4 = Error(x, RoundTrip(DType::kS24_Q4, x));
    CHECK(q4 <= Error(x, RoundedToLargest(pruned, -8, 7, -8)) * (1 + 1e-6));
    CHECK(q4 <= Error(x, RoundedToLargest(pruned, -7, 7, 7)) * (1 + 1e-6));
    CHECK(Error(x, RoundTrip(DType::kS24_Q8, x)) <=
          Error(x, RoundedToLargest(pruned, -127, 127, 127)) * (1 + 1e-6));
  }
}

TEST_CASE("positions and halves of S24_F16 lie where blocks.h says") {
  BlockS24_F16 block = {};
  block.at[0] = 0x9C;      // kept values 0 and 1 at elements 0 and 3, 2 and 3 at elements 5 and 6
  block.at[1] = 0x50;      // kept values 6 and 7 both at element 13
  block.kept[0] = 0x4000;  // 2
  block.kept[1] = 0x4200;  // 3
  block.kept[3] = 0xC400;  // -4
  block.kept[6] = 0x4500;  // 5
  block.kept[7] = 0x4600;  // 6, which counts
  Values expected(16), values(16);
  expected[0] = 2;
  expected[3] = 3;
  expected[6] = -4;
  expected[13] = 6;
  Info(DType::kS24_F16).decode(&block, values.data(), 16);
  CHECK(values == expected);
  block.kept[7] = 0x3FC0;
  expected[0] = 2;      // 0x4000 as bfloat16
  expected[3] = 32;     // 0x4200
  expected[6] = -512;   // 0xC400
  expected[13] = 1.5f;  // 0x3FC0
  Info(DType::kS24_BF16).decode(&block, values.data(), 16);
  CHECK(values == expected);
}

TEST_CASE("S24 in 16 bits keeps the larger two of four as F16 and BF16 would") {
  const Values x = Random(16 * 50, 8);
  const Values pruned = PrunedByMagnitude(x);
  CHECK(RoundTrip(DType::kS24_F16, x) == RoundTrip(DType::kF16, pruned));
  CHECK(RoundTrip(DType::kS24_BF16, x) == RoundTrip(DType::kBF16, pruned));
  Values weights(x.size(), 1.0f);
  for (size_t i = 0; i < x.size(); i += 4) weights[i] = 1e6f;
  const Values weighted = RoundTrip(DType::kS24_F16, x, weights.data());
  size_t lost = 0;
  for (size_t i = 0; i < x.size(); i += 4) lost += std::fabs(x[i]) > 0.01f && weighted[i] == 0;
  CHECK(lost == 0);
  const Values huge(16, 3e38f);
  CHECK(std::isfinite(RoundTrip(DType::kS24_F16, huge)[0]));
  CHECK(Info(DType::kS24_F16).bits_per_weight() == 9);
}

TEST_CASE("any bytes of S24 with a finite scale decode to finite values") {
  Rng rng(5);
  for (const DType type : kSparse) {
    for (int trial = 0; trial < 500; ++trial) {
      uint8_t block[sizeof(BlockS24_Q8)];
      for (uint8_t& byte : block) byte = static_cast<uint8_t>(rng.Next());
      block[1] &= 0xFB;  // a bit of the half's exponent
      Values values(64);
      Info(type).decode(block, values.data(), 64);
      CHECK(std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }));
    }
  }
}

}  // namespace edgewise
