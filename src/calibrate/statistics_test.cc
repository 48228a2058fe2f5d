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

// Largest difference from sums in double precision, relative to the number of tokens.
double WorstOf(ProductSum* sum, const std::vector<float>& a, const std::vector<float>& x,
               size_t columns) {
  const size_t tokens = x.size() / columns;
  const float* found = sum->Finish();
  double worst = 0;
  for (size_t i = 0; i < columns; ++i) {
    for (size_t j = 0; j < columns; ++j) {
      double expected = 0;
      for (size_t t = 0; t < tokens; ++t) {
        expected += static_cast<double>(a[t * columns + i]) * x[t * columns + j];
      }
      worst = std::max(worst, std::fabs(expected - found[i * columns + j]));
    }
  }
  return worst / static_cast<double>(tokens);
}

TEST_CASE("products of inputs are summed over any number of tokens and threads") {
  constexpr size_t kColumns = 150, kTokens = 1300;
  const auto x = Random(kColumns * kTokens, 1), a = Random(kColumns * kTokens, 2);
  std::vector<float> first;
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    auto symmetric = ProductSum::Create(kColumns, true, &pool);
    auto general = ProductSum::Create(kColumns, false, &pool);
    REQUIRE(symmetric.has_value());
    REQUIRE(general.has_value());
    for (size_t at = 0; at < kTokens; at += 7) {
      const size_t n = std::min<size_t>(7, kTokens - at);
      symmetric->Add(x.data() + at * kColumns, nullptr, n, kColumns);
      general->Add(x.data() + at * kColumns, a.data() + at * kColumns, n, kColumns);
    }
    CHECK(symmetric->tokens() == kTokens);
    CHECK(WorstOf(&*symmetric, x, x, kColumns) < 1e-5);
    CHECK(WorstOf(&*general, a, x, kColumns) < 1e-5);
    const float* sum = symmetric->Finish();
    const std::vector<float> now(sum, sum + kColumns * kColumns);
    if (first.empty()) first = now;
    CHECK(now == first);
  }
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
