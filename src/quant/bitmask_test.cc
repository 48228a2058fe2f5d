// BM_Q4 and BM_Q8: their bytes, which values they keep, and what they cost.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/rng.h"
#include "quant/blocks.h"
#include "quant/dtype.h"
#include "quant/test_sparse.h"

namespace edgewise {
namespace {

constexpr DType kBitmask[] = {DType::kBM_Q4, DType::kBM_Q8};

// Sets half of each `group` values to zero.
Values Pruned(Values x, size_t group, uint64_t seed) {
  Rng rng(seed);
  for (size_t first = 0; first < x.size(); first += group) {
    size_t left = group / 2;
    for (size_t i = 0; i < group; ++i) {  // each with the chance that gives `left` in the end
      if (rng.Below(group - i) >= left) continue;
      x[first + i] = 0;
      --left;
    }
  }
  return x;
}

}  // namespace

TEST_CASE("masks and values of BM lie where blocks.h says") {
  BlockBM_Q4 q4 = {};
  q4.d = kOne;
  q4.mask[0] = 0x82;  // elements 1 and 7 are kept values 0 and 1
  q4.mask[2] = 0xFF;  // elements 16 to 23: 2 to 9
  q4.mask[7] = 0xFF;  // elements 56 to 63: 10 to 17
  std::fill(std::begin(q4.qs), std::end(q4.qs), uint8_t{0x88});
  q4.qs[0] = 0x0F;  // kept value 0: 7, kept value 16: -8
  q4.qs[1] = 0xA7;  // kept value 1: -1, kept value 17: 2
  q4.qs[15] = 0x89;
  Values expected(64);
  expected[1] = 7;
  expected[7] = -1;
  expected[61] = 1;
  expected[62] = -8;
  expected[63] = 2;
  CHECK(Decode(DType::kBM_Q4, q4) == expected);

  BlockBM_Q8 q8 = {};
  q8.d = kOne;
  q8.mask[0] = 0x82;
  q8.mask[7] = 0x80;
  q8.qs[0] = 100;
  q8.qs[1] = -128;
  q8.qs[2] = 5;
  q8.qs[3] = 77;  // no element left
  expected.assign(64, 0);
  expected[1] = 100;
  expected[7] = -128;
  expected[63] = 5;
  CHECK(Decode(DType::kBM_Q8, q8) == expected);

  std::fill(std::begin(q8.mask), std::end(q8.mask), uint8_t{0xFF});  // only 32 are kept
  q8.qs[31] = 9;
  expected.assign(64, 0);
  expected[0] = 100;
  expected[1] = -128;
  expected[2] = 5;
  expected[3] = 77;
  expected[31] = 9;
  CHECK(Decode(DType::kBM_Q8, q8) == expected);
}

TEST_CASE("BM holds every pattern of half the values, 2:4 to 32:64, and sparser ones") {
  for (const size_t group : {4, 8, 16, 32, 64}) {
    const Values x = Pruned(Random(64 * 20, group), group, 7);
    const Values sparser = Pruned(x, 4, 9);  // some of what is left
    Values weights(x.size());
    Rng rng(4);
    for (float& w : weights) w = rng.Below(3) ? static_cast<float>(rng.Uniform()) : 0.0f;
    for (const DType type : kBitmask) {
      CAPTURE(std::string(Info(type).name));
      CAPTURE(group);
      for (const float* by : {static_cast<float*>(nullptr), weights.data()}) {
        for (const Values* values : {&x, &sparser}) {
          const Values y = RoundTrip(type, *values, by);
          size_t lost = 0, gained = 0;
          for (size_t i = 0; i < x.size(); ++i) {
            gained += (*values)[i] == 0 && y[i] != 0;
            lost += std::fabs((*values)[i]) > 0.5f && y[i] * (*values)[i] <= 0;
          }
          CHECK(gained == 0);
          CHECK(lost == 0);
        }
      }
    }
  }
}

TEST_CASE("BM keeps the 32 of 64 that weigh most") {
  const Values x = Random(64 * 20, 3);
  Values weights(x.size());
  Rng rng(4);
  for (float& w : weights) w = static_cast<float>(rng.Uniform());
  std::vector<BlockBM_Q8> blocks(20);
  Info(DType::kBM_Q8).encode(x.data(), weights.data(), blocks.data(), x.size());
  for (size_t b = 0; b < blocks.size(); ++b) {
    uint64_t mask;
    std::memcpy(&mask, blocks[b].mask, 8);
    CHECK(std::popcount(mask) == 32);
    double least_kept = 1e9, most_dropped = 0;
    for (size_t j = 0; j < 64; ++j) {
      const double value = x[64 * b + j], cost = value * value * weights[64 * b + j];
      if (mask >> j & 1) least_kept = std::min(least_kept, cost);
      if (!(mask >> j & 1)) most_dropped = std::max(most_dropped, cost);
    }
    CHECK(most_dropped <= least_kept + 2e-6 * 16);
  }
}

TEST_CASE("BM loses less than S24 of as many bytes") {
  const Values x = Random(64 * 200, 5);
  CHECK(Error(x, RoundTrip(DType::kBM_Q4, x)) < 0.85 * Error(x, RoundTrip(DType::kS24_Q4, x)));
  CHECK(Error(x, RoundTrip(DType::kBM_Q8, x)) < 0.75 * Error(x, RoundTrip(DType::kS24_Q8, x)));
  // Where both can hold all there is, they round alike.
  const Values pruned = Pruned(x, 4, 6);
  CHECK(RoundTrip(DType::kBM_Q4, pruned) == RoundTrip(DType::kS24_Q4, pruned));
}

TEST_CASE("any bytes of BM with a finite scale decode to finite values") {
  Rng rng(5);
  for (const DType type : kBitmask) {
    for (int trial = 0; trial < 500; ++trial) {
      uint8_t block[sizeof(BlockBM_Q8)];
      for (uint8_t& byte : block) byte = static_cast<uint8_t>(rng.Next());
      block[1] &= 0xFB;  // a bit of the half's exponent
      Values values(64);
      Info(type).decode(block, values.data(), 64);
      CHECK(std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }));
    }
  }
}

}  // namespace edgewise
