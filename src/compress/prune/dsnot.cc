#include "compress/prune/dsnot.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "compress/quantize/output_error.h"

namespace edgewise {
namespace {

// Swaps weights of one row.
class RowSwaps {
 public:
  RowSwaps(std::span<const float> w, const InputDistribution& input, const Sparsity& sparsity,
           const DsnotOptions& options, size_t row, Mask* mask);
  void Run();

 private:
  double Score(size_t c) const { return std::fabs(w_[c]) * static_cast<double>(input_.norms[c]); }
  std::optional<size_t> Pruned(size_t regrown);

  std::span<const float> w_;  // (columns)
  const InputDistribution& input_;
  const Sparsity& sparsity_;
  const DsnotOptions& options_;
  size_t row_;
  Mask* mask_;
  std::vector<double> effect_;    // (columns): what pruning a weight adds to the error
  std::vector<size_t> regrow_;    // pruned columns, the one that lowers the error most first
  std::vector<size_t> prune_;     // kept columns whose loss lowers the error, lowest score first
  std::vector<uint8_t> settled_;  // (columns): pruned at first, or swapped since
  size_t next_ = 0;               // of prune_
  double error_ = 0;
};

RowSwaps::RowSwaps(std::span<const float> w, const InputDistribution& input,
                   const Sparsity& sparsity, const DsnotOptions& options, size_t row, Mask* mask)
    : w_(w),
      input_(input),
      sparsity_(sparsity),
      options_(options),
      row_(row),
      mask_(mask),
      effect_(w.size()),
      settled_(w.size()) {
  for (size_t c = 0; c < w.size(); ++c) {
    effect_[c] = options.sequence * w[c] * input.mean[c];
    settled_[c] = mask->kept(row, c) ? 0 : 1;
    if (settled_[c] != 0) error_ += effect_[c];
  }
}

// Orders the candidates. The error keeps its sign while the row is at work, so once is enough.
void RowSwaps::Run() {
  const double sign = error_ > 0 ? 1 : -1;
  const auto gain = [&](size_t c) {
    const double variance = input_.variance[c];
    return variance > 0 ? sign * effect_[c] / variance : 0;
  };
  for (size_t c = 0; c < w_.size(); ++c) {
    if (settled_[c] != 0 && gain(c) > 0) regrow_.push_back(c);
    if (settled_[c] == 0 && sign * effect_[c] < 0) prune_.push_back(c);
  }
  // By position where equal.
  std::sort(regrow_.begin(), regrow_.end(),
            [&](size_t a, size_t b) { return std::pair(-gain(a), a) < std::pair(-gain(b), b); });
  std::sort(prune_.begin(), prune_.end(),
            [&](size_t a, size_t b) { return std::pair(Score(a), a) < std::pair(Score(b), b); });
  if (regrow_.size() > static_cast<size_t>(options_.cycles)) regrow_.resize(options_.cycles);
  for (const size_t regrown : regrow_) {
    if (std::fabs(error_) <= options_.threshold) return;
    const std::optional<size_t> pruned = Pruned(regrown);
    if (!pruned) continue;
    const double after = error_ + effect_[*pruned] - effect_[regrown];
    if (sign * after <= 0) return;
    if (std::fabs(after) >= std::fabs(error_)) continue;
    settled_[*pruned] = 1;
    mask_->Prune(row_, *pruned);
    mask_->Keep(row_, regrown);
    error_ = after;
  }
}

// The kept weight that goes for `regrown`.
std::optional<size_t> RowSwaps::Pruned(size_t regrown) {
  if (!sparsity_.structured()) {
    if (next_ == prune_.size()) return std::nullopt;
    return prune_[next_++];
  }
  std::optional<size_t> lowest;
  const size_t first = regrown / sparsity_.group * sparsity_.group;
  for (size_t c = first; c < first + sparsity_.group; ++c) {
    if (settled_[c] == 0 && (!lowest || Score(c) < Score(*lowest))) lowest = c;
  }
  return lowest;
}

}  // namespace

Result<Mask> SwapWeights(std::span<const float> w, const InputDistribution& input, const Mask& mask,
                         const Sparsity& sparsity, const DsnotOptions& options, ThreadPool* pool) {
  const size_t columns = input.norms.size();
  if (columns == 0 || input.mean.size() != columns || input.variance.size() != columns ||
      w.size() % columns != 0) {
    return MakeError(Code::kInvalidArgument,
                     "%zu means, %zu variances and %zu norms do not describe the columns of %zu "
                     "weights: calibrate this model",
                     input.mean.size(), input.variance.size(), columns, w.size());
  }
  EW_TRY(mask.CheckShape(w.size() / columns, columns));
  EW_TRY(sparsity.CheckColumns(columns));
  EW_TRY(CheckFinite("to prune", w, columns));
  for (size_t c = 0; c < columns; ++c) {
    if (std::isfinite(input.mean[c] * input.variance[c] * input.norms[c])) continue;
    return MakeError(
        Code::kBadData,
        "the mean, variance or norm of input column %zu is not finite: calibrate again", c);
  }
  Mask swapped = mask;
  pool->ParallelFor(mask.rows(), 4, [&](size_t begin, size_t end, int) {
    for (size_t row = begin; row < end; ++row) {
      RowSwaps(w.subspan(row * columns, columns), input, sparsity, options, row, &swapped).Run();
    }
  });
  return swapped;
}

}  // namespace edgewise
