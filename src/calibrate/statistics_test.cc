#include "calibrate/statistics.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"

namespace edgewise {
namespace {

std::vector<float> Random(size_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(rng.Gaussian());
  return values;
}

TEST_CASE("products of inputs are summed over any number of tokens and threads") {
  constexpr size_t kColumns = 150, kTokens = 1300;
  const auto x = Random(kColumns * kTokens, 1);
  std::vector<float> first;
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    auto sum = ProductSum::Create(kColumns, &pool);
    REQUIRE(sum.has_value());
    for (size_t at = 0; at < kTokens; at += 7) {
      sum->Add(x.data() + at * kColumns, std::min<size_t>(7, kTokens - at), kColumns);
    }
    const float* found = sum->Finish();
    const std::vector<float> now(found, found + kColumns * kColumns);
    if (first.empty()) first = now;
    CHECK(now == first);
  }
  double worst = 0;
  for (size_t i = 0; i < kColumns; ++i) {
    for (size_t j = 0; j < kColumns; ++j) {
      double expected = 0;
      for (size_t t = 0; t < kTokens; ++t) {
        expected += static_cast<double>(x[t * kColumns + i]) * x[t * kColumns + j];
      }
      worst = std::max(worst, std::fabs(expected - first[i * kColumns + j]));
    }
  }
  CHECK(worst < 1e-5 * kTokens);
}

TEST_CASE("moments of columns add up, in one piece or merged") {
  const std::vector<float> x = {1, -2, 3, 4, 0, -6};  // (3, 2)
  ColumnMoments whole(2), head(2), tail(2);
  whole.Add(x.data(), 3, 2);
  head.Add(x.data(), 1, 2);
  tail.Add(x.data() + 2, 2, 2);
  head.Merge(tail);
  CHECK(whole.tokens == 3);
  CHECK(whole.sum_squares == std::vector<double>{10, 56});
  CHECK(whole.sum_abs == std::vector<double>{4, 12});
  CHECK(whole.max_abs == std::vector<float>{3, 6});
  CHECK(head.sum_squares == whole.sum_squares);
  CHECK(head.max_abs == whole.max_abs);
  CHECK(head.tokens == 3);
}

}  // namespace
}  // namespace edgewise
