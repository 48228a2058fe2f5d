#include "compress/prune/sparsegpt.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "compress/matrix.h"
#include "compress/prune/select.h"

namespace edgewise {
namespace {

constexpr size_t kColumns = 128;  // that are pruned together
constexpr size_t kRows = 32;      // that one piece of work takes together

// The inverse of a diagonal block of R and its transpose, both (size, size).
struct BlockInverse {
  BlockInverse(const ErrorMetric& metric, size_t first, size_t size);
  std::vector<float> u, transposed;
};

BlockInverse::BlockInverse(const ErrorMetric& metric, size_t first, size_t size)
    : u(size * size), transposed(size * size) {
  std::vector<double> column(size);
  for (size_t j = 0; j < size; ++j) {
    std::fill(column.begin(), column.end(), 0.0);
    column[j] = 1;
    for (size_t i = j + 1; i-- > 0;) {  // R column = e_j, from the last row up
      const float* r = metric.factor(first + i) + first;
      column[i] /= r[i];
      for (size_t k = 0; k < i; ++k) column[k] -= r[k] * column[i];
      u[i * size + j] = transposed[j * size + i] = static_cast<float>(column[i]);
    }
  }
}

class Sweep {
 public:
  Sweep(std::vector<float> w, const InputMetric& input, const Sparsity& sparsity, const Mask* mask,
        const Mask* within, GroupRounder* rounder, ThreadPool* pool)
      : w_(std::move(w)),
        n_(input.n()),
        rows_(w_.size() / n_),
        metric_(input.metric),
        sparsity_(sparsity),
        selects_(mask == nullptr),
        within_(within),
        rounder_(rounder),
        pool_(pool),
        mask_(mask != nullptr ? *mask : Mask(rows_, n_, !sparsity.structured())),
        values_(w_.size()),
        deltas_(w_.size()),
        work_(rows_ * kColumns),
        errors_((rows_ + kRows - 1) / kRows) {}

  Result<PrunedMatrix> Run() &&;

 private:
  // A few rows of a block of columns while the sweep passes; column-major for vector code.
  struct Panel {
    size_t first_row, rows, first, size;
    float x[kColumns][kRows];
  };
  void Update(size_t first_row, size_t first, size_t size, const BlockInverse& inverse);
  bool Within(size_t row, size_t column) const {
    return within_ == nullptr || within_->kept(row, column);
  }
  void SelectBlock(size_t first, size_t size);
  void Pass(size_t first_row, size_t first, size_t size, const BlockInverse& inverse);
  uint64_t KeptOfGroup(const Panel& panel, size_t column, size_t row) const;
  void SelectGroups(const Panel& panel, size_t column);
  void FitGroup(const Panel& panel, size_t column) const;
  void Settle(Panel* panel, size_t column, float* error);
  void ForChunks(FunctionRef<void(size_t first_row)> body) const;

  std::vector<float> w_;
  size_t n_, rows_;
  const ErrorMetric& metric_;
  const Sparsity& sparsity_;
  bool selects_;
  const Mask* within_;  // null: all
  GroupRounder* rounder_;
  ThreadPool* pool_;
  Mask mask_;
  std::vector<float> values_, deltas_;  // (rows, n): q and w - q, of the columns passed
  std::vector<float> work_;             // (rows, size): weights of the block as it begins
  std::vector<double> errors_;          // of each chunk of rows
};

void Sweep::ForChunks(FunctionRef<void(size_t first_row)> body) const {
  pool_->ParallelFor(errors_.size(), 1, [&](size_t begin, size_t end, int) {
    for (size_t chunk = begin; chunk < end; ++chunk) body(chunk * kRows);
  });
}

// Brings the weights of a block to where what was pruned before hurts least.
void Sweep::Update(size_t first_row, size_t first, size_t size, const BlockInverse& inverse) {
  const size_t rows = std::min(kRows, rows_ - first_row);
  float* work = work_.data() + first_row * size;
  if (first > 0) {
    float sums[kRows * kColumns];
    MultiplyTransposed(metric_.factor(first), n_, size, deltas_.data() + first_row * n_, n_, rows,
                       first, sums, size);
    MultiplyTransposed(inverse.transposed.data(), size, size, sums, size, rows, size, work, size);
  } else {
    std::fill_n(work, rows * size, 0.0f);
  }
  for (size_t r = 0; r < rows; ++r) {
    const float* w = w_.data() + (first_row + r) * n_ + first;
    for (size_t j = 0; j < size; ++j) work[r * size + j] += w[j];
  }
}

void Sweep::SelectBlock(size_t first, size_t size) {
  std::vector<float> scores(rows_ * size);
  for (size_t i = 0; i < scores.size(); ++i) {
    const size_t column = first + i % size;
    if (Within(i / size, column)) scores[i] = std::fabs(work_[i]) * metric_.factor(column)[column];
  }
  const size_t count =
      sparsity_.PrunedOf(rows_ * (first + size)) - sparsity_.PrunedOf(rows_ * first);
  SelectLowest(scores, std::min(count, scores.size()),
               [&](size_t i) { mask_.Prune(i / size, first + i % size); });
}

// The weights that the N:M group of the panel at `column` keeps in `row`, as bits.
uint64_t Sweep::KeptOfGroup(const Panel& panel, size_t column, size_t row) const {
  float scores[64];
  for (size_t k = 0; k < sparsity_.group; ++k) {
    const size_t c = panel.first + column + k;
    const bool may = Within(panel.first_row + row, c);
    scores[k] = may ? std::fabs(panel.x[column + k][row]) * metric_.factor(c)[c] : 0;
  }
  return SelectOfGroup({scores, sparsity_.group}, sparsity_.keep);
}

void Sweep::SelectGroups(const Panel& panel, size_t column) {
  for (size_t r = 0; r < panel.rows; ++r) {
    for (uint64_t kept = KeptOfGroup(panel, column, r); kept != 0; kept &= kept - 1) {
      mask_.Keep(panel.first_row + r,
                 panel.first + column + static_cast<size_t>(std::countr_zero(kept)));
    }
  }
}

// Fits the rounder to the weights that would be kept if the sweep changed them no more.
void Sweep::FitGroup(const Panel& panel, size_t column) const {
  const size_t group = rounder_->group();
  std::vector<float> weights(panel.rows * group);
  for (size_t r = 0; r < panel.rows; ++r) {
    uint64_t kept = 0;
    for (size_t j = 0; j < group; ++j) {
      bool keep = mask_.kept(panel.first_row + r, panel.first + column + j);
      if (selects_ && sparsity_.structured()) {
        const size_t in_group = j % sparsity_.group;
        if (in_group == 0) kept = KeptOfGroup(panel, column + j, r);
        keep = (kept >> in_group & 1) != 0;
      }
      weights[r * group + j] = keep ? panel.x[column + j][r] : 0;
    }
  }
  rounder_->Fit(panel.first_row, panel.first + column, weights);
}

// Gives a column its final values; error (rows) takes what that costs, in units of R.
void Sweep::Settle(Panel* panel, size_t column, float* error) {
  const size_t c = panel->first + column;
  const float pivot = metric_.factor(c)[c];
  for (size_t r = 0; r < panel->rows; ++r) {
    const size_t row = panel->first_row + r;
    const float x = panel->x[column][r];
    float q = 0;
    if (mask_.kept(row, c) && Within(row, c))
      q = rounder_ != nullptr ? rounder_->Round(row, c, x) : x;
    values_[row * n_ + c] = q;
    deltas_[row * n_ + c] = w_[row * n_ + c] - q;
    error[r] = (x - q) * pivot;
  }
}

void Sweep::Pass(size_t first_row, size_t first, size_t size, const BlockInverse& inverse) {
  Panel panel{first_row, std::min(kRows, rows_ - first_row), first, size, {}};
  for (size_t j = 0; j < size; ++j) {
    for (size_t r = 0; r < panel.rows; ++r) panel.x[j][r] = work_[(first_row + r) * size + j];
  }
  double total = 0;
  float error[kRows] = {};
  for (size_t i = 0; i < size; ++i) {
    if (rounder_ != nullptr && i % rounder_->group() == 0) FitGroup(panel, i);
    if (selects_ && sparsity_.structured() && i % sparsity_.group == 0) SelectGroups(panel, i);
    Settle(&panel, i, error);
    for (size_t r = 0; r < kRows; ++r) total += static_cast<double>(error[r]) * error[r];
    for (size_t j = i + 1; j < size; ++j) {
      const float u = inverse.u[i * size + j];
      for (size_t r = 0; r < kRows; ++r) panel.x[j][r] -= error[r] * u;
    }
  }
  errors_[first_row / kRows] += total;
}

Result<PrunedMatrix> Sweep::Run() && {
  const size_t step = selects_ ? SweepColumns(sparsity_) : kColumns;
  for (size_t first = 0; first < n_; first += step) {
    const size_t size = std::min(step, n_ - first);
    const BlockInverse inverse(metric_, first, size);
    ForChunks([&](size_t row) { Update(row, first, size, inverse); });
    if (selects_ && !sparsity_.structured()) SelectBlock(first, size);
    ForChunks([&](size_t row) { Pass(row, first, size, inverse); });
  }
  const double error = std::accumulate(errors_.begin(), errors_.end(), 0.0);
  if (!std::isfinite(error)) {
    return MakeError(Code::kBadData,
                     "pruning this tensor leaves the range of float32: its weights or the second "
                     "moments of its inputs are damaged");
  }
  if (within_ != nullptr) mask_ &= *within_;
  return PrunedMatrix{std::move(values_), std::move(mask_), error};
}

Status CheckRounder(const GroupRounder* rounder, size_t columns, size_t step, size_t group) {
  if (rounder == nullptr) return Ok{};
  const size_t size = rounder->group();
  if (step % size == 0 && columns % size == 0 && (group == 0 || size % group == 0)) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "scales for groups of %zu columns do not fit rows of %zu that are pruned %zu "
                   "columns at a time: choose a group that divides both%s",
                   size, columns, step, group == 0 ? "" : " and holds whole groups of N:M");
}

}  // namespace

size_t SweepColumns(const Sparsity& sparsity) {
  return sparsity.structured() ? kColumns / sparsity.group * sparsity.group : kColumns;
}

Result<PrunedMatrix> PruneSparseGpt(std::span<const float> w, const InputMetric& input,
                                    const Sparsity& sparsity, GroupRounder* rounder,
                                    ThreadPool* pool, const Mask* within) {
  EW_TRY(sparsity.CheckColumns(input.n()));
  EW_TRY(CheckRounder(rounder, input.n(), SweepColumns(sparsity), sparsity.group));
  EW_TRY(std::vector<float> live, input.LiveWeights(w));
  return Sweep(std::move(live), input, sparsity, nullptr, within, rounder, pool).Run();
}

Result<PrunedMatrix> UpdateForMask(std::span<const float> w, const InputMetric& input,
                                   const Mask& mask, GroupRounder* rounder, ThreadPool* pool) {
  EW_TRY(CheckRounder(rounder, input.n(), kColumns, 0));
  EW_TRY(std::vector<float> live, input.LiveWeights(w));
  EW_TRY(mask.CheckShape(live.size() / input.n(), input.n()));
  const Sparsity given;
  return Sweep(std::move(live), input, given, &mask, nullptr, rounder, pool).Run();
}

}  // namespace edgewise
