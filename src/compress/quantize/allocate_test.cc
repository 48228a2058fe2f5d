#include "compress/quantize/allocate.h"

#include <doctest/doctest.h>

#include <limits>

#include "base/rng.h"

namespace edgewise {
namespace {

struct Sum {
  uint64_t bytes = 0;
  double cost = 0;
};

Sum SumOf(const std::vector<TensorChoices>& tensors, const std::vector<size_t>& chosen) {
  Sum sum;
  for (size_t t = 0; t < tensors.size(); ++t) {
    sum.bytes += tensors[t][chosen[t]].bytes;
    sum.cost += tensors[t][chosen[t]].cost;
  }
  return sum;
}

// The least cost of all combinations within the budget.
double Exhaustive(const std::vector<TensorChoices>& tensors, size_t t, uint64_t budget) {
  if (t == tensors.size()) return 0;
  double least = std::numeric_limits<double>::infinity();
  for (const FormatChoice& choice : tensors[t]) {
    if (choice.bytes > budget) continue;
    least = std::min(least, choice.cost + Exhaustive(tensors, t + 1, budget - choice.bytes));
  }
  return least;
}

std::vector<TensorChoices> Random(uint64_t seed, size_t tensors, uint64_t unit) {
  Rng rng(seed);
  std::vector<TensorChoices> all(tensors);
  for (TensorChoices& choices : all) {
    const double weight = rng.Uniform() * 10;
    for (int i = 0; i < 4; ++i) {
      const uint64_t bytes = (20 + rng.Below(300)) * unit;
      choices.push_back({bytes, weight * 1e4 / static_cast<double>(bytes / unit)});
    }
  }
  return all;
}

TEST_CASE("no combination within the bytes costs less") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const auto tensors = Random(seed, 6, 48);
    uint64_t smallest = 0, largest = 0;
    for (const TensorChoices& choices : tensors) {
      uint64_t low = UINT64_MAX, high = 0;
      for (const FormatChoice& choice : choices) {
        low = std::min(low, choice.bytes);
        high = std::max(high, choice.bytes);
      }
      smallest += low;
      largest += high;
    }
    for (int i = 0; i <= 4; ++i) {
      const uint64_t budget = smallest + (largest - smallest) * static_cast<uint64_t>(i) / 4;
      CAPTURE(seed);
      CAPTURE(budget);
      const auto chosen = Allocate(tensors, budget);
      REQUIRE(chosen.has_value());
      const Sum sum = SumOf(tensors, *chosen);
      CHECK(sum.bytes <= budget);
      CHECK(sum.cost == doctest::Approx(Exhaustive(tensors, 0, budget)).epsilon(1e-12));
    }
    CHECK_FALSE(Allocate(tensors, smallest - 1));
  }
}

TEST_CASE("sizes far apart are rounded, and the rest is spent") {
  auto tensors = Random(3, 200, 1'000'003);
  for (TensorChoices& choices : tensors) choices[1].bytes += 7;
  const uint64_t budget = 200 * uint64_t{1'000'003} * 120;
  const auto chosen = Allocate(tensors, budget);
  REQUIRE(chosen.has_value());
  const Sum sum = SumOf(tensors, *chosen);
  CHECK(sum.bytes <= budget);
  CHECK(static_cast<double>(sum.bytes) >= 0.995 * static_cast<double>(budget));
}

}  // namespace
}  // namespace edgewise
