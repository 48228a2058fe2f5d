#include "compress/prune/score.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "compress/prune/problem.h"
#include "compress/prune/select.h"

namespace edgewise {
namespace {

// The scores in double precision, from the papers.
std::vector<double> PaperScores(ScoreMethod method, const Problem& p) {
  std::vector<double> scores(p.w.size());
  for (size_t r = 0; r < p.rows; ++r) {
    for (size_t c = 0; c < p.n; ++c) {
      const double w = std::fabs(p.w[r * p.n + c]);
      const double norm = std::sqrt(static_cast<double>(p.moments.sum_squares[c]));
      double row = 0, column = 0;
      for (size_t j = 0; j < p.n; ++j) row += std::fabs(p.w[r * p.n + j]);
      for (size_t i = 0; i < p.rows; ++i) column += std::fabs(p.w[i * p.n + c]);
      double& score = scores[r * p.n + c];
      if (method == ScoreMethod::kMagnitude) score = w;
      if (method == ScoreMethod::kWanda) score = w * norm;
      if (method == ScoreMethod::kRia) score = (w / column + w / row) * std::sqrt(norm);
    }
  }
  return scores;
}

// Sorts each set of `size` consecutive scores and prunes the first `pruned`.
std::vector<bool> LowestOfEach(const std::vector<double>& scores, size_t size, size_t pruned) {
  std::vector<bool> kept(scores.size(), true);
  for (size_t first = 0; first < scores.size(); first += size) {
    std::vector<std::pair<double, size_t>> sorted;
    for (size_t i = first; i < first + size; ++i) sorted.emplace_back(scores[i], i);
    std::sort(sorted.begin(), sorted.end());
    for (size_t k = 0; k < pruned; ++k) kept[sorted[k].second] = false;
    if (pruned > 0) REQUIRE(sorted[pruned].first > sorted[pruned - 1].first * (1 + 1e-6));
  }
  return kept;
}

bool Same(const Mask& mask, const std::vector<bool>& kept) {
  for (size_t i = 0; i < kept.size(); ++i) {
    if (mask.kept(i / mask.columns(), i % mask.columns()) != kept[i]) return false;
  }
  return true;
}

TEST_CASE("masks of magnitude, Wanda and RIA are those of the papers") {
  const Problem p(30, 72, 1);
  ThreadPool one(1), three(3);
  for (const auto method : {ScoreMethod::kMagnitude, ScoreMethod::kWanda, ScoreMethod::kRia}) {
    const auto scores = Scores(method, p.w, p.n, ColumnNorms(p.moments), 0);
    REQUIRE(scores.has_value());
    const auto expected = PaperScores(method, p);
    const auto masked = [&](const char* text, PruneScope scope) {
      const auto sparsity = Sparsity::Parse(text);
      const auto mask = SelectMask(*scores, p.n, *sparsity, scope, &one);
      REQUIRE(mask.has_value());
      CHECK(mask->Holds(*sparsity));
      CHECK(*mask == *SelectMask(*scores, p.n, *sparsity, scope, &three));
      return *mask;
    };
    CHECK(Same(masked("0.6", PruneScope::kRow), LowestOfEach(expected, p.n, 43)));
    CHECK(Same(masked("0.6", PruneScope::kMatrix), LowestOfEach(expected, p.w.size(), 1296)));
    CHECK(Same(masked("2:4", PruneScope::kRow), LowestOfEach(expected, 4, 2)));
    CHECK(Same(masked("4:8", PruneScope::kRow), LowestOfEach(expected, 8, 4)));
    CHECK(masked("0", PruneScope::kMatrix).CountKept() == p.w.size());
  }
}

TEST_CASE("random scores come from their seed") {
  const Problem p(8, 40, 2);
  const auto scores = [&](uint64_t seed) {
    return *Scores(ScoreMethod::kRandom, p.w, p.n, {}, seed);
  };
  CHECK(scores(1) == scores(1));
  CHECK(scores(1) != scores(2));
}

TEST_CASE("of equal scores the first go first, and counts stay exact") {
  const std::vector<float> scores(40, 1.0f);
  ThreadPool pool(1);
  const Mask rows = *SelectMask(scores, 10, *Sparsity::Parse("0.35"), PruneScope::kRow, &pool);
  const Mask all = *SelectMask(scores, 10, *Sparsity::Parse("0.35"), PruneScope::kMatrix, &pool);
  const Mask groups = *SelectMask(scores, 10, *Sparsity::Parse("2:5"), PruneScope::kRow, &pool);
  for (size_t i = 0; i < scores.size(); ++i) {
    CHECK(rows.kept(i / 10, i % 10) == (i % 10 >= 3));
    CHECK(all.kept(i / 10, i % 10) == (i >= 14));
    CHECK(groups.kept(i / 10, i % 10) == (i % 5 >= 3));
  }
}

TEST_CASE("the global threshold is that of all scores together") {
  const Problem a(20, 30, 3), b(7, 50, 4);
  for (const char* text : {"0", "0.1", "0.5", "0.993"}) {
    CAPTURE(text);
    std::vector<float> first = *Scores(ScoreMethod::kMagnitude, a.w, a.n, {}, 0);
    const std::vector<float> second = *Scores(ScoreMethod::kMagnitude, b.w, b.n, {}, 0);
    for (size_t i = 0; i < 100; ++i) first[i * 3] = second[50];  // many at one value
    GlobalSelection selection(*Sparsity::Parse(text));
    selection.Count(first);
    selection.Count(second);
    selection.Refine(first);
    selection.Refine(second);
    const Mask masks[] = {selection.Select(first, a.n), selection.Select(second, b.n)};
    std::vector<float> all = first;
    all.insert(all.end(), second.begin(), second.end());
    std::vector<bool> kept(all.size(), true);
    SelectLowest(all, Sparsity::Parse(text)->PrunedOf(all.size()),
                 [&](size_t i) { kept[i] = false; });
    CHECK(Same(masks[0], {kept.begin(), kept.begin() + 600}));
    CHECK(Same(masks[1], {kept.begin() + 600, kept.end()}));
  }
}

TEST_CASE("bad input to scores is named") {
  Problem p(4, 12, 5);
  ThreadPool pool(1);
  const auto norms = ColumnNorms(p.moments);
  CHECK(Fails(Scores(ScoreMethod::kWanda, p.w, p.n, std::span(norms).first(11), 0),
              Code::kInvalidArgument, "norms of 11 input columns and the matrix has 12"));
  CHECK(Fails(SelectMask(p.w, p.n, *Sparsity::Parse("2:5"), PruneScope::kRow, &pool),
              Code::kInvalidArgument, "groups of 5"));
  p.w[17] = std::numeric_limits<float>::quiet_NaN();
  CHECK(Fails(Scores(ScoreMethod::kMagnitude, p.w, p.n, {}, 0), Code::kBadData, "row 1, column 5"));
}

}  // namespace
}  // namespace edgewise
