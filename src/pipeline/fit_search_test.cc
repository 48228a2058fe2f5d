// The search on made-up candidates, and its tables.
#include "pipeline/fit_search.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "pipeline/fit_report.h"
#include "pipeline/fit_space.h"

namespace edgewise {
namespace {

using Positions = std::vector<size_t>;

FitCandidate Make(const std::string& name, uint64_t bytes, double kl, double ms,
                  bool sparse = false) {
  FitCandidate candidate;
  candidate.name = name;
  candidate.file_bytes = bytes;
  candidate.sparse = sparse;
  candidate.predicted = {ms, 2 * ms, 10 * bytes};
  candidate.kl = {{kl, kl / 10, 0.9, 100}};
  return candidate;
}

TEST_CASE("rounds double the text until four are left; a short text has fewer rounds") {
  using Rounds = std::vector<uint32_t>;
  CHECK(RoundWindows(4, 100) == Rounds{100});
  CHECK(RoundWindows(0, 100) == Rounds{100});
  CHECK(RoundWindows(5, 100) == Rounds{50, 100});
  CHECK(RoundWindows(18, 101) == Rounds{12, 25, 50, 101});
  CHECK(RoundWindows(1000, 3) == Rounds{1, 3});
  CHECK(RoundWindows(1000, 1) == Rounds{1});
}

TEST_CASE("the Pareto front holds what nothing beats, equal points included") {
  CHECK(ParetoFront({}).empty());
  const std::vector<Objectives> points = {{1, 5}, {2, 4}, {2, 5}, {5, 1}, {2, 4}, {5, 2}};
  CHECK(ParetoFront(points) == Positions{0, 1, 3, 4});
}

TEST_CASE(
    "fronts are kept one after the other; of the one that is cut, the best of each kind first") {
  // Two fronts: the second is the first moved away.
  const std::vector<Objectives> points = {{0, 10}, {1, 8}, {2, 7}, {9, 1}, {10, 0}, {11, 11}};
  CHECK(KeepBest(points, 6) == Positions{0, 1, 2, 3, 4, 5});
  CHECK(KeepBest(points, 5) == Positions{0, 1, 2, 3, 4});
  CHECK(KeepBest(points, 2) == Positions{0, 4});
  // Of the inner three, 2 and 3 have the gap beside them.
  CHECK(KeepBest(points, 4) == Positions{0, 2, 3, 4});
  CHECK(KeepBest(points, 9).size() == 6);
  // Equal points: by position.
  const std::vector<Objectives> same(5, Objectives{1, 1});
  CHECK(KeepBest(same, 2) == Positions{0, 1});
  // The best in the first objective is never lost, nor is that of the next while there is room.
  const std::vector<Objectives> ends = {{5, 1, 3}, {4, 2, 2}, {9, 3, 1}, {1, 9, 9}};
  CHECK(KeepBest(ends, 1) == Positions{3});
  CHECK(KeepBest(ends, 2) == Positions{0, 3});
  CHECK(KeepBest(ends, 3) == Positions{0, 2, 3});
}

TEST_CASE("halving keeps the best by KL, size and speed, and a sparse one's dense alternative") {
  std::vector<FitCandidate> all = {Make("best", 100, 0.01, 5),       Make("worse", 101, 0.02, 6),
                                   Make("small", 50, 0.2, 4),        Make("smaller", 49, 0.3, 3),
                                   Make("sparse", 50, 0.1, 1, true), Make("dominated", 51, 0.4, 6)};
  const Positions alive = {0, 1, 2, 3, 4, 5};
  // sparse is kept for its speed; "small" is what it must be compared with.
  const Positions kept = HalveCandidates(all, alive, 0);
  CHECK(kept == Positions{0, 2, 3, 4});
}

TEST_CASE("the dense alternative is no larger and the nearest to the original in the same round") {
  std::vector<FitCandidate> all = {Make("a", 60, 0.01, 1), Make("b", 50, 0.2, 1),
                                   Make("c", 40, 0.1, 1), Make("sparse", 50, 0.3, 1, true),
                                   Make("tiny", 10, 0.9, 1, true)};
  const Positions among = {0, 1, 2, 3, 4};
  CHECK(DenseAlternative(all, among, 3, 0) == 2);
  CHECK(DenseAlternative(all, among, 3, std::nullopt) == 1);
  CHECK(!DenseAlternative(all, among, 4, 0));
  CHECK(!DenseAlternative(all, among, 3, 1));  // no such round
  CHECK(DenseAlternativeText(all, 3).find("c, 40 B, KL 0.1") != std::string::npos);
  CHECK(DenseAlternativeText(all, 4) == "no dense candidate is as small");
  CHECK(DenseAlternativeText(all, 0).empty());
}

TEST_CASE("the screen is exact for files, generous for predictions, and names what is over") {
  std::vector<FitCandidate> all = {Make("large", 101, 0, 1), Make("slow", 100, 0, 4.8),
                                   Make("near", 100, 0, 4.4), Make("good", 90, 0, 1),
                                   Make("sparse", 95, 0, 1, true)};
  all.push_back(Make("broken", 0, 0, 0));
  all.back().left_out = "cannot be made: x";
  FitBudget budget;
  budget.file_bytes = 100;
  budget.p99_ms = 4;
  CHECK(ScreenCandidates(budget, &all) == Positions{2, 3, 4});
  CHECK(all[0].left_out.find("file 101 B (budget 100 B, 1.0 % over)") != std::string::npos);
  CHECK(all[1].left_out.find("p99 4.8 ms (budget 4 ms, 20.0 % over)") != std::string::npos);
  CHECK(all[5].left_out == "cannot be made: x");
  // Too slow, but what the sparse one is compared with.
  budget.file_bytes = 95;
  std::vector<FitCandidate> two = {Make("dense", 94, 0, 9), Make("sparse", 95, 0, 1, true)};
  CHECK(ScreenCandidates(budget, &two) == Positions{0, 1});
  CHECK(two[0].left_out.empty());
}

TEST_CASE("the lowest KL within the budget as measured is chosen; ties go to the smaller file") {
  std::vector<FitCandidate> all = {Make("best", 100, 0.01, 1), Make("same", 80, 0.02, 1),
                                   Make("as good", 70, 0.02, 1), Make("cheap", 50, 0.5, 1)};
  FitBudget budget;
  budget.p99_ms = 2;
  CHECK(!ChooseCandidate(budget, all));  // nothing is measured
  for (FitCandidate& candidate : all) candidate.measured = FitFigures{1, 1, 100};
  CHECK(ChooseCandidate(budget, all) == 0);
  all[0].measured->p99_ms = 2.1;
  CHECK(ChooseCandidate(budget, all) == 2);
  budget.memory_bytes = 99;
  all[3].measured->memory_bytes = 99;
  CHECK(ChooseCandidate(budget, all) == 3);
  budget.memory_bytes = 98;
  CHECK(!ChooseCandidate(budget, all));
  const std::string text = DescribeShortfall(budget, all);
  CHECK(text.find("nearest is cheap, measured: memory 99 B (budget 98 B, 1.0 % over)") !=
        std::string::npos);
  CHECK(BudgetMisses({}, 1, {1, 1, 1}).empty());
}

TEST_CASE("the space has distinct candidates, all of them recipes, and is cut down by name") {
  const auto space = FitSpace({}, 0);
  REQUIRE(space);
  std::vector<std::string> names;
  for (const FitCandidate& candidate : *space) {
    CHECK(candidate.passes.is_array());
    names.push_back(candidate.name);
  }
  std::sort(names.begin(), names.end());
  CHECK(std::adjacent_find(names.begin(), names.end()) == names.end());
  const auto two = FitSpace({"q4_0", "q8_0"}, 5);
  REQUIRE(two);
  REQUIRE(two->size() == 2);
  CHECK((*two)[0].name == "q8_0");
  const auto unknown = FitSpace({"q4_0", "q9"}, 0);
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().message.find("\"q9\"; known are q8_0, ") != std::string::npos);
}

TEST_CASE("a budget for the file has a mixture of its own") {
  const auto space = FitSpace({"mix-1000-bytes"}, 1000);
  REQUIRE(space);
  REQUIRE(space->size() == 1);
  CHECK(space->front().passes.Dump().find("\"target_bytes\":1000") != std::string::npos);
  CHECK_FALSE(FitSpace({"mix-1000-bytes"}, 0));
}

TEST_CASE("open formats are predicted between the dense candidates of the next sizes") {
  std::vector<FitCandidate> all = {Make("a", 100, 0, 4), Make("b", 200, 0, 8),
                                   Make("sparse", 150, 0, 1, true)};
  CHECK(Interpolate(all, 150)->step_ms == doctest::Approx(6));
  CHECK(Interpolate(all, 125)->p99_ms == doctest::Approx(10));
  CHECK(Interpolate(all, 125)->memory_bytes == 1250);
  CHECK(Interpolate(all, 100)->step_ms == 4);
  CHECK(Interpolate(all, 50)->step_ms == 4);
  CHECK(Interpolate(all, 500)->step_ms == 8);
  all[0].left_out = all[1].left_out = "x";
  CHECK(!Interpolate(all, 150));
}

FitSummary Summary() {
  FitSummary summary;
  summary.model = "<model>";
  summary.budget.file_bytes = 200;
  summary.rounds = {50, 100};
  summary.candidates = {Make("q8", 200, 0.01, 2), Make("q2", 50, 0.3, 1),
                        Make("sparse", 60, 0.2, 1, true), Make("out", 300, 0, 1)};
  for (size_t i : {0, 1, 2}) summary.candidates[i].measured = FitFigures{1.25, 2, 1000};
  summary.candidates[3].left_out = "predicted: <too large>";
  summary.front = {0, 1};
  summary.chosen = 0;
  return summary;
}

TEST_CASE("tables, page and JSON say the same, with the dense alternative of each sparse row") {
  const FitSummary summary = Summary();
  const auto table = FitTable(summary, false);
  REQUIRE(table.size() == 4);
  CHECK(table[1].front() == "q8");
  CHECK(table[1].back() == "chosen");
  CHECK(table[1][7] == "-37.5 %");  // 500 of 800 tokens/s
  CHECK(table[2].back() == "dense within its bytes: q2, 50 B, KL 0.30000");
  CHECK(FitTable(summary, true).size() == 5);
  REQUIRE(FitDropouts(summary).size() == 1);
  const std::string page = FitHtml(summary);
  CHECK(page.find("dense within its bytes: q2") != std::string::npos);
  CHECK(page.find("&lt;too large&gt;") != std::string::npos);
  CHECK(page.find("<too large>") == std::string::npos);
  const Json json = ToJson(summary);
  CHECK(*json.Find("chosen")->AsString() == "q8");
  const Json& sparse = json.Find("candidates")->AsArray()->at(2);
  CHECK(*sparse.Find("dense_alternative")->Find("name")->AsString() == "q2");
  CHECK(json.Find("candidates")->AsArray()->at(0).Find("dense_alternative") == nullptr);
}

}  // namespace
}  // namespace edgewise
