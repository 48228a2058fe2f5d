#include "compress/prune/owl.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "compress/prune/problem.h"

namespace edgewise {
namespace {

TEST_CASE("outliers are counted over all matrices of a layer") {
  std::vector<float> first(90, 1.0f), second(10, 1.0f);
  second[3] = 100;  // the mean is 1.99
  first[7] = 9.9f;
  const std::span<const float> layer[] = {first, second};
  CHECK(OutlierPercent(layer, 4.5) == doctest::Approx(2));
  CHECK(OutlierPercent(layer) == doctest::Approx(1));  // the mean is 2.08
  CHECK(OutlierPercent({}) == 0);
}

TEST_CASE("layers with more outliers keep more, and the mean is the target") {
  const std::vector<double> outliers = {3.0, 0.5, 1.0, 0.25, 2.0, 0.3};
  const auto ratios = OwlRatios(outliers, 0.7);
  REQUIRE(ratios.has_value());
  CHECK(std::accumulate(ratios->begin(), ratios->end(), 0.0) / 6 == doctest::Approx(0.7));
  const auto [low, high] = std::minmax_element(ratios->begin(), ratios->end());
  CHECK(*high - *low == doctest::Approx(0.16));
  CHECK(low - ratios->begin() == 0);
  CHECK(high - ratios->begin() == 3);
  const auto equal = OwlRatios(std::vector<double>{1, 1, 1}, 0.5);
  CHECK(*equal == std::vector<double>{0.5, 0.5, 0.5});
}

TEST_CASE("ratios that cannot be are refused") {
  const std::vector<double> outliers = {3.0, 0.5};
  CHECK(Fails(OwlRatios(outliers, 0.97), Code::kInvalidArgument, "lambda 0.08"));
  CHECK(Fails(OwlRatios(outliers, 0.01), Code::kInvalidArgument, "lambda 0.08"));
  CHECK(Fails(OwlRatios(outliers, 1), Code::kInvalidArgument, "is no sparsity"));
  CHECK(Fails(OwlRatios({}, 0.5), Code::kInvalidArgument, "no layers"));
}

}  // namespace
}  // namespace edgewise
