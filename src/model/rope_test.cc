#include "model/rope.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace edgewise {
namespace {

RopeSpec Rope(uint32_t rotary_dim, float base) {
  RopeSpec rope;
  rope.rotary_dim = rotary_dim;
  rope.base = base;
  return rope;
}

TEST_CASE("frequencies fall from 1 by equal ratios") {
  const std::vector<double> frequencies = RopeFrequencies(Rope(8, 10000.0f), false);
  REQUIRE(frequencies.size() == 4);
  CHECK(frequencies[0] == doctest::Approx(1.0));
  CHECK(frequencies[1] == doctest::Approx(0.1));
  CHECK(frequencies[2] == doctest::Approx(0.01));
  CHECK(frequencies[3] == doctest::Approx(0.001));
}

TEST_CASE("llama3 keeps high frequencies, divides low ones, and ramps between") {
  RopeSpec rope = Rope(128, 500000.0f);  // Llama 3.1
  rope.scaling = RopeScalingKind::kLlama3;
  rope.factor = 8.0f;
  rope.original_context = 8192;
  const std::vector<float> factors = Llama3FrequencyFactors(rope);
  REQUIRE(factors.size() == 64);
  CHECK(factors[0] == 1.0f);
  CHECK(factors[28] == 1.0f);
  CHECK(factors[29] > 1.0f);
  CHECK(factors[34] < 8.0f);
  CHECK(factors[35] == 8.0f);
  CHECK(factors[63] == 8.0f);
  for (size_t i = 1; i < factors.size(); ++i) CHECK(factors[i] >= factors[i - 1]);
  // The parameters alone, the tensor alone and both mean the same.
  const std::vector<double> from_parameters = RopeFrequencies(rope, false);
  rope.frequency_factors = factors;
  CHECK(RopeFrequencies(rope, false) == from_parameters);
  rope.scaling = RopeScalingKind::kNone;
  CHECK(RopeFrequencies(rope, false) == from_parameters);
}

TEST_CASE("yarn leaves fast pairs and divides slow ones") {
  RopeSpec rope = Rope(64, 10000.0f);
  const std::vector<double> plain = RopeFrequencies(rope, false);
  rope.scaling = RopeScalingKind::kYarn;
  rope.factor = 4.0f;
  rope.original_context = 4096;
  const std::vector<double> scaled = RopeFrequencies(rope, false);
  CHECK(scaled[0] == plain[0]);
  CHECK(scaled[31] == doctest::Approx(plain[31] / 4));
  for (size_t i = 0; i < plain.size(); ++i) {
    CHECK(scaled[i] <= plain[i]);
    CHECK(scaled[i] >= plain[i] / 4 * (1 - 1e-12));
  }
  CHECK(YarnAttentionFactor(1.0) == 1.0);
  CHECK(YarnAttentionFactor(4.0) == doctest::Approx(1 + 0.1 * std::log(4.0)));
}

TEST_CASE("longrope has a list for short and one for long contexts") {
  RopeSpec rope = Rope(4, 100.0f);
  rope.scaling = RopeScalingKind::kLongRope;
  rope.short_factors = {1.0f, 2.0f};
  rope.long_factors = {4.0f, 8.0f};
  CHECK(RopeFrequencies(rope, false)[1] == doctest::Approx(0.05));
  CHECK(RopeFrequencies(rope, true)[1] == doctest::Approx(0.0125));
}

TEST_CASE("angles are exact at large positions") {
  const RopeSpec rope = Rope(2, 10000.0f);
  const std::vector<double> frequencies = RopeFrequencies(rope, false);
  float cos = 0, sin = 0;
  RopeAngles(rope, frequencies, 100003, &cos, &sin);
  CHECK(cos == doctest::Approx(std::cos(100003.0)).epsilon(1e-6));
  CHECK(sin == doctest::Approx(std::sin(100003.0)).epsilon(1e-6));
}

TEST_CASE("sliding layers take their own base without scaling") {
  ModelSpec spec;
  spec.rope = Rope(8, 1e6f);
  spec.rope.scaling = RopeScalingKind::kLinear;
  spec.rope.factor = 8.0f;
  CHECK(SlidingRope(spec) == spec.rope);
  spec.local_rope_base = 10000.0f;
  const RopeSpec local = SlidingRope(spec);
  CHECK(local.base == 10000.0f);
  CHECK(local.scaling == RopeScalingKind::kNone);
  CHECK(local.rotary_dim == 8);
}

}  // namespace
}  // namespace edgewise
