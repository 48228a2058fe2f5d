#include "compress/prune/schedule.h"

#include <doctest/doctest.h>

#include <string>

#include "base/strings.h"
#include "compress/prune/alps.h"
#include "compress/prune/problem.h"
#include "compress/prune/sparsegpt.h"

namespace edgewise {
namespace {

std::string Steps(const char* sparsity, uint32_t steps) {
  std::vector<std::string> names;
  for (const Sparsity& step : PruneSchedule(*Sparsity::Parse(sparsity), steps)) {
    names.push_back(step.ToString());
  }
  return Join(names, " ");
}

TEST_CASE("shares grow as the cube says, and end where they should") {
  CHECK(Steps("50%", 1) == "50%");
  CHECK(Steps("64%", 4) == "37% 56% 63% 64%");
  CHECK(Steps("50%", 2) == "43.75% 50%");
}

TEST_CASE("steps of N:M prune one weight of a group or more") {
  CHECK(Steps("2:4", 1) == "2:4");
  CHECK(Steps("2:4", 2) == "3:4 2:4");
  CHECK(Steps("2:4", 3) == "3:4 2:4");
  CHECK(Steps("2:4", 60) == "3:4 2:4");
  CHECK(Steps("4:8", 4) == "6:8 5:8 4:8");
  CHECK(Steps("3:4", 9) == "3:4");
}

TEST_CASE("what is zero stays zero in the next step, whatever updates weights") {
  const Problem problem(70, 128, 5);
  const InputMetric input = problem.Metric();
  const auto spectral = SpectralMetric::Create(input);
  REQUIRE(spectral);
  ThreadPool pool(2);
  for (const auto& [first, second] : {std::pair("3:4", "2:4"), {"40%", "60%"}}) {
    CAPTURE(std::string(second));
    const Sparsity before = *Sparsity::Parse(first), after = *Sparsity::Parse(second);
    const auto start = PruneSparseGpt(problem.w, input, before, nullptr, &pool);
    REQUIRE(start);
    const Mask within = Mask::OfValues(start->values, 128);
    const auto check = [&](const Result<PrunedMatrix>& result, const Result<PrunedMatrix>& free) {
      REQUIRE((result && free));
      CHECK(result->mask.Holds(after));
      Mask both = result->mask;
      both &= within;
      CHECK(both == result->mask);
      CHECK(Mask::OfValues(result->values, 128) == result->mask);
      Mask other = free->mask;
      other &= within;
      // In groups weights come back where that is not forbidden.
      if (after.structured()) CHECK(other != free->mask);
    };
    check(PruneSparseGpt(start->values, input, after, nullptr, &pool, &within),
          PruneSparseGpt(start->values, input, after, nullptr, &pool));
    check(PruneAlps(start->values, *spectral, after, AlpsOptions(), &pool, &within),
          PruneAlps(start->values, *spectral, after, AlpsOptions(), &pool));
  }
}

}  // namespace
}  // namespace edgewise
