#include "base/rng.h"

#include <doctest/doctest.h>

#include <cmath>

namespace edgewise {
namespace {

TEST_CASE("the sequence is fixed by the seed") {
  Rng a(42), b(42), c(43);
  for (int i = 0; i < 100; ++i) {
    const uint64_t value = a.Next();
    CHECK(value == b.Next());
    CHECK(value != c.Next());
  }
}

TEST_CASE("bounded draws are uniform (chi-square, 9 degrees of freedom)") {
  Rng rng(1);
  constexpr int kDraws = 100000;
  int counts[10] = {};
  for (int i = 0; i < kDraws; ++i) ++counts[rng.Below(10)];
  double chi_square = 0;
  for (const int count : counts) chi_square += std::pow(count - kDraws / 10.0, 2) / (kDraws / 10.0);
  CHECK(chi_square < 27.9);  // p = 0.001
}

TEST_CASE("moments of the uniform and the Gaussian draws") {
  Rng rng(7);
  constexpr int kDraws = 200000;
  double uniform = 0, sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = rng.Uniform();
    REQUIRE(u >= 0);
    REQUIRE(u < 1);
    uniform += u;
    const double g = rng.Gaussian();
    sum += g;
    squares += g * g;
    fourth += g * g * g * g;
  }
  CHECK(uniform / kDraws == doctest::Approx(0.5).epsilon(0.01));
  CHECK(std::abs(sum / kDraws) < 0.01);
  CHECK(squares / kDraws == doctest::Approx(1).epsilon(0.02));
  CHECK(fourth / kDraws == doctest::Approx(3).epsilon(0.05));
}

}  // namespace
}  // namespace edgewise
