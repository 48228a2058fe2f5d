#include "compress/prune/permute.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "compress/prune/assignment.h"
#include "compress/prune/problem.h"
#include "compress/prune/select.h"

namespace edgewise {
namespace {

TEST_CASE("the assignment is the best of all") {
  Rng rng(1);
  for (size_t n = 1; n <= 7; ++n) {
    std::vector<double> scores(n * n);
    for (double& score : scores) score = rng.Below(4) == 0 ? 0 : rng.Gaussian();
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t{0});
    double best = -1e9;
    const auto total = [&](const std::vector<size_t>& columns) {
      double sum = 0;
      for (size_t i = 0; i < n; ++i) sum += scores[i * n + columns[i]];
      return sum;
    };
    do best = std::max(best, total(order));
    while (std::next_permutation(order.begin(), order.end()));
    std::vector<size_t> found = MaximalAssignment(scores, n);
    CHECK(total(found) == doctest::Approx(best));
    std::sort(found.begin(), found.end());
    CHECK(found == order);  // sorted again after the last permutation
  }
}

// What N:M keeps of the scores, columns in this order.
double Kept(const std::vector<float>& scores, size_t columns, const Sparsity& sparsity,
            const std::vector<uint32_t>& order) {
  std::vector<float> moved(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    moved[i] = scores[i / columns * columns + order[i % columns]];
  }
  ThreadPool pool(1);
  SelectMask(moved, columns, sparsity, PruneScope::kRow, &pool)->Apply(moved);
  return std::accumulate(moved.begin(), moved.end(), 0.0);
}

TEST_CASE("an order never keeps less than the one before") {
  ThreadPool one(1), three(3);
  for (const char* text : {"2:4", "4:8", "1:4", "3:4"}) {
    for (uint64_t seed = 0; seed < 3; ++seed) {
      CAPTURE(text);
      Rng rng(seed);
      const size_t columns = 48, rows = seed == 0 ? 1 : 70;
      std::vector<float> scores(rows * columns);
      for (float& score : scores) score = static_cast<float>(std::fabs(rng.Gaussian()));
      const auto sparsity = Sparsity::Parse(text);
      const auto order = PermuteChannels(scores, columns, *sparsity, &one);
      REQUIRE(order.has_value());
      std::vector<uint32_t> identity(columns);
      std::iota(identity.begin(), identity.end(), 0u);
      CHECK(order->kept_score >= order->kept_score_before);
      CHECK(order->kept_score_before ==
            doctest::Approx(Kept(scores, columns, *sparsity, identity)));
      CHECK(order->kept_score == doctest::Approx(Kept(scores, columns, *sparsity, order->columns)));
      CHECK(PermuteChannels(scores, columns, *sparsity, &three)->columns == order->columns);
      auto sorted = order->columns;
      std::sort(sorted.begin(), sorted.end());
      CHECK(sorted == identity);
    }
  }
}

TEST_CASE("channels that stand together are spread, where dealing them does not do it too") {
  // Groups of four strong columns, then of four weak ones: 2:4 loses half of the strong.
  const size_t columns = 64, rows = 16;
  const auto sparsity = Sparsity::Parse("2:4");
  ThreadPool pool(1);
  Rng rng(3);
  std::vector<float> scores(rows * columns);
  for (size_t i = 0; i < scores.size(); ++i) {
    const bool strong = i % columns / 4 % 2 == 0;
    scores[i] = static_cast<float>((strong ? 10 : 1) + 0.1 * rng.Uniform());
  }
  const auto spread = PermuteChannels(scores, columns, *sparsity, &pool);
  CHECK(spread->kept_score > 1.8 * spread->kept_score_before);
  // Columns of equal sums, strong in even or in odd rows: what fits depends on the neighbours.
  for (size_t i = 0; i < scores.size(); ++i) {
    const bool strong = (i / columns) % 2 == i % columns / 4 % 2;
    scores[i] = strong ? 10 : 1;
  }
  const auto paired = PermuteChannels(scores, columns, *sparsity, &pool);
  CHECK(paired->kept_score == doctest::Approx(10.0 * rows * columns / 2));
  CHECK(paired->kept_score > 1.8 * paired->kept_score_before);
}

TEST_CASE("what has no channel order is refused") {
  const std::vector<float> scores(60);
  ThreadPool pool(1);
  CHECK(Fails(PermuteChannels(scores, 10, *Sparsity::Parse("0.5"), &pool), Code::kInvalidArgument,
              "only to N:M"));
  CHECK(Fails(PermuteChannels(scores, 10, *Sparsity::Parse("2:4"), &pool), Code::kInvalidArgument,
              "groups of 4"));
}

}  // namespace
}  // namespace edgewise
