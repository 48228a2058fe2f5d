#include "text/merge.h"

#include <doctest/doctest.h>

#include <vector>

#include "base/rng.h"

namespace edgewise {
namespace {

// The definition: merge the leftmost pair of the lowest rank until none is left.
std::vector<int32_t> MergeSlowly(const PairTable& table, std::vector<int32_t> symbols) {
  while (true) {
    PairRule best;
    size_t where = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const PairRule rule = table.Find(symbols[i], symbols[i + 1]);
      if (rule.rank < best.rank) {
        best = rule;
        where = i;
      }
    }
    if (best.merged < 0) return symbols;
    symbols[where] = best.merged;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(where) + 1);
  }
}

TEST_CASE("a pair has one rule") {
  PairTable table;
  CHECK(table.Insert(1, 2, {0, 3}));
  CHECK_FALSE(table.Insert(1, 2, {1, 4}));
  CHECK(table.Find(1, 2).merged == 3);
  CHECK(table.Find(2, 1).merged == -1);
  CHECK(table.rank_count() == 1);
}

TEST_CASE("any length merges as the definition says, with equal and disordered ranks too") {
  Rng rng(4);
  for (int round = 0; round < 300; ++round) {
    PairTable table;
    // Results of a merge take part in further merges, of lower, equal or higher rank.
    int32_t symbols = 4;
    const auto ranks = static_cast<uint32_t>(rng.Below(30) + 1);
    for (int i = 0; i < 40; ++i) {
      const auto left = static_cast<int32_t>(rng.Below(symbols));
      const auto right = static_cast<int32_t>(rng.Below(symbols));
      const auto rank = static_cast<uint32_t>(rng.Below(ranks));
      if (table.Insert(left, right, {rank, symbols})) ++symbols;
    }
    std::vector<int32_t> text(rng.Below(300));
    for (int32_t& symbol : text) symbol = static_cast<int32_t>(rng.Below(4));
    const std::vector<int32_t> expected = MergeSlowly(table, text);
    PairMerger merger(table);
    for (int again = 0; again < 2; ++again) {  // buffers are reused
      std::vector<int32_t> merged = text;
      merger.Merge(&merged);
      REQUIRE(merged == expected);
    }
  }
}

}  // namespace
}  // namespace edgewise
