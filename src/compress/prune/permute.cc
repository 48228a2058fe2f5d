#include "compress/prune/permute.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "base/strings.h"
#include "compress/prune/assignment.h"

namespace edgewise {
namespace {

class ChannelSearch {
 public:
  ChannelSearch(std::span<const float> scores, size_t columns, const Sparsity& sparsity,
                ThreadPool* pool)
      : scores_(scores),
        columns_(columns),
        rows_(scores.size() / columns),
        sparsity_(sparsity),
        groups_(columns / sparsity.group),
        pool_(pool) {}

  double KeptScore(const std::vector<uint32_t>& order) const;
  std::vector<uint32_t> Deal() const;
  std::vector<uint32_t> Reassign(std::vector<uint32_t> order, size_t place) const;

 private:
  float score(size_t row, size_t column) const { return scores_[row * columns_ + column]; }
  std::vector<float> Bars(const std::vector<uint32_t>& order, size_t place, size_t group) const;

  std::span<const float> scores_;
  size_t columns_, rows_;
  const Sparsity& sparsity_;
  size_t groups_;
  ThreadPool* pool_;
};

double ChannelSearch::KeptScore(const std::vector<uint32_t>& order) const {
  std::vector<double> kept(groups_);
  pool_->ParallelFor(groups_, 4, [&](size_t begin, size_t end, int) {
    std::vector<float> group(sparsity_.group);
    const auto middle = group.begin() + sparsity_.keep;
    for (size_t g = begin; g < end; ++g) {
      for (size_t r = 0; r < rows_; ++r) {
        for (size_t i = 0; i < group.size(); ++i) {
          group[i] = score(r, order[g * group.size() + i]);
        }
        std::partial_sort(group.begin(), middle, group.end(), std::greater<>());
        kept[g] = std::accumulate(group.begin(), middle, kept[g]);
      }
    }
  });
  return std::accumulate(kept.begin(), kept.end(), 0.0);
}

// Deals the columns like cards: each round gives every group one, and the next goes back.
std::vector<uint32_t> ChannelSearch::Deal() const {
  std::vector<double> sums(columns_);
  for (size_t i = 0; i < scores_.size(); ++i) sums[i % columns_] += scores_[i];
  std::vector<uint32_t> sorted(columns_), order(columns_);
  std::iota(sorted.begin(), sorted.end(), 0u);
  std::sort(sorted.begin(), sorted.end(), [&](uint32_t a, uint32_t b) {
    return std::pair(-sums[a], a) < std::pair(-sums[b], b);
  });
  for (size_t i = 0; i < columns_; ++i) {
    const size_t round = i / groups_, at = i % groups_;
    const size_t group = round % 2 == 0 ? at : groups_ - 1 - at;
    order[group * sparsity_.group + round] = sorted[i];
  }
  return order;
}

// What a column at `place` of `group` has to beat in each row (rows): of the other columns N - 1
// are kept, and it or the next one too.
std::vector<float> ChannelSearch::Bars(const std::vector<uint32_t>& order, size_t place,
                                       size_t group) const {
  std::vector<float> bars(rows_), others(sparsity_.group - 1);
  const auto bar = others.begin() + (sparsity_.keep - 1);
  for (size_t r = 0; r < rows_; ++r) {
    size_t count = 0;
    for (size_t i = 0; i < sparsity_.group; ++i) {
      if (i != place) others[count++] = score(r, order[group * sparsity_.group + i]);
    }
    std::nth_element(others.begin(), bar, others.end(), std::greater<>());
    bars[r] = *bar;
  }
  return bars;
}

// Hands the columns at `place` of all groups out anew. A group keeps sum_r max(bar_r, score_r) and
// what does not depend on the column.
std::vector<uint32_t> ChannelSearch::Reassign(std::vector<uint32_t> order, size_t place) const {
  std::vector<float> movable(rows_ * groups_);  // (rows, groups): scores of the columns handed out
  for (size_t i = 0; i < movable.size(); ++i) {
    movable[i] = score(i / groups_, order[i % groups_ * sparsity_.group + place]);
  }
  std::vector<double> gains(groups_ * groups_);
  pool_->ParallelFor(groups_, 4, [&](size_t begin, size_t end, int) {
    constexpr size_t kRows = 64;  // summed in float32
    std::vector<float> sums(groups_);
    for (size_t g = begin; g < end; ++g) {
      const std::vector<float> bars = Bars(order, place, g);
      for (size_t first = 0; first < rows_; first += kRows) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (size_t r = first; r < std::min(rows_, first + kRows); ++r) {
          const float bar = bars[r];
          const float* scores = movable.data() + r * groups_;
          for (size_t c = 0; c < groups_; ++c) sums[c] += scores[c] > bar ? scores[c] : bar;
        }
        for (size_t c = 0; c < groups_; ++c) gains[g * groups_ + c] += sums[c];
      }
    }
  });
  const std::vector<size_t> taken = MaximalAssignment(gains, groups_);
  std::vector<uint32_t> next = order;
  for (size_t g = 0; g < groups_; ++g) {
    next[g * sparsity_.group + place] = order[taken[g] * sparsity_.group + place];
  }
  return next;
}

}  // namespace

Result<ChannelOrder> PermuteChannels(std::span<const float> scores, size_t columns,
                                     const Sparsity& sparsity, ThreadPool* pool) {
  if (!sparsity.structured()) {
    return MakeError(Code::kInvalidArgument,
                     "a channel order matters only to N:M sparsity, not to %s: leave it out",
                     sparsity.ToString().c_str());
  }
  EW_TRY(sparsity.CheckColumns(columns));
  const ChannelSearch search(scores, columns, sparsity, pool);
  ChannelOrder best;
  best.columns.resize(columns);
  std::iota(best.columns.begin(), best.columns.end(), 0u);
  best.kept_score_before = best.kept_score = search.KeptScore(best.columns);
  std::vector<uint32_t> order = search.Deal();
  for (size_t place = 0; place <= sparsity.group; ++place) {
    const double kept = search.KeptScore(order);
    if (kept > best.kept_score) {
      best.kept_score = kept;
      best.columns = order;
    }
    if (place < sparsity.group) order = search.Reassign(std::move(order), place);
  }
  return best;
}

}  // namespace edgewise
