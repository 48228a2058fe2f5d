#include "compress/prune/select.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "base/check.h"

namespace edgewise {
namespace {

// Floats >= 0 are ordered as their bits are, NaN above all.
uint32_t BitsOf(float score) { return std::bit_cast<uint32_t>(score); }

Mask SelectGroups(std::span<const float> scores, size_t columns, const Sparsity& sparsity,
                  ThreadPool* pool) {
  Mask mask(scores.size() / columns, columns, false);
  pool->ParallelFor(mask.rows(), 16, [&](size_t begin, size_t end, int) {
    for (size_t row = begin; row < end; ++row) {
      for (size_t first = 0; first < columns; first += sparsity.group) {
        const auto group = scores.subspan(row * columns + first, sparsity.group);
        uint64_t kept = SelectOfGroup(group, sparsity.keep);
        for (; kept != 0; kept &= kept - 1) {
          mask.Keep(row, first + static_cast<size_t>(std::countr_zero(kept)));
        }
      }
    }
  });
  return mask;
}

}  // namespace

void SelectLowest(std::span<const float> scores, size_t count,
                  FunctionRef<void(size_t index)> prune) {
  if (count == 0) return;
  std::vector<uint32_t> bits(scores.size());
  std::transform(scores.begin(), scores.end(), bits.begin(), BitsOf);
  const auto last = bits.begin() + static_cast<std::ptrdiff_t>(count - 1);
  std::nth_element(bits.begin(), last, bits.end());
  const uint32_t threshold = *last;
  auto equal = static_cast<size_t>(std::count(bits.begin(), last + 1, threshold));
  for (size_t i = 0; i < scores.size(); ++i) {
    const uint32_t score = BitsOf(scores[i]);
    if (score > threshold || (score == threshold && equal == 0)) continue;
    if (score == threshold) --equal;
    prune(i);
  }
}

uint64_t SelectOfGroup(std::span<const float> scores, size_t keep) {
  uint64_t kept = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    size_t above = 0;  // that go later than i
    for (size_t j = 0; j < scores.size(); ++j) {
      const uint32_t mine = BitsOf(scores[i]), other = BitsOf(scores[j]);
      above += other > mine || (other == mine && j > i) ? 1 : 0;
    }
    if (above < keep) kept |= uint64_t{1} << i;
  }
  return kept;
}

Result<Mask> SelectMask(std::span<const float> scores, size_t columns, const Sparsity& sparsity,
                        PruneScope scope, ThreadPool* pool) {
  EW_TRY(sparsity.CheckColumns(columns));
  if (sparsity.structured()) return SelectGroups(scores, columns, sparsity, pool);
  if (scope == PruneScope::kMatrix) {
    GlobalSelection selection(sparsity);
    selection.Count(scores);
    selection.Refine(scores);
    return selection.Select(scores, columns);
  }
  Mask mask(scores.size() / columns, columns, true);
  pool->ParallelFor(mask.rows(), 4, [&](size_t begin, size_t end, int) {
    for (size_t row = begin; row < end; ++row) {
      SelectLowest(scores.subspan(row * columns, columns), sparsity.PrunedOf(columns),
                   [&](size_t c) { mask.Prune(row, c); });
    }
  });
  return mask;
}

GlobalSelection::GlobalSelection(const Sparsity& sparsity)
    : sparsity_(sparsity), counts_(size_t{1} << 16) {
  EW_CHECK(!sparsity.structured());
}

// Finds the half of the threshold's bits that the pass so far has counted.
void GlobalSelection::Advance(Pass to) {
  if (pass_ == to) return;
  EW_CHECK(static_cast<int>(to) == static_cast<int>(pass_) + 1);
  if (pass_ == Pass::kCount) {
    const size_t total = std::accumulate(counts_.begin(), counts_.end(), size_t{0});
    left_ = sparsity_.PrunedOf(total);
  }
  uint32_t half = 0;
  while (half + 1 < counts_.size() && counts_[half] < left_) left_ -= counts_[half++];
  threshold_ |= pass_ == Pass::kCount ? half << 16 : half;
  std::fill(counts_.begin(), counts_.end(), 0);
  pass_ = to;
}

void GlobalSelection::Count(std::span<const float> scores) {
  EW_CHECK(pass_ == Pass::kCount);
  for (const float score : scores) ++counts_[BitsOf(score) >> 16];
}

void GlobalSelection::Refine(std::span<const float> scores) {
  Advance(Pass::kRefine);
  for (const float score : scores) {
    const uint32_t bits = BitsOf(score);
    if (bits >> 16 == threshold_ >> 16) ++counts_[bits & 0xFFFF];
  }
}

Mask GlobalSelection::Select(std::span<const float> scores, size_t columns) {
  Advance(Pass::kSelect);
  Mask mask(scores.size() / columns, columns, false);
  for (size_t row = 0; row < mask.rows(); ++row) {
    for (size_t c = 0; c < columns; ++c) {
      const uint32_t bits = BitsOf(scores[row * columns + c]);
      bool kept = bits > threshold_;
      if (bits == threshold_) {
        kept = left_ == 0;
        left_ -= kept ? 0 : 1;
      }
      mask.KeepIf(kept, row, c);
    }
  }
  return mask;
}

}  // namespace edgewise
