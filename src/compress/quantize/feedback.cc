#include "compress/quantize/feedback.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/half.h"
#include "compress/matrix.h"
#include "kernels/kernels.h"
#include "quant/block_parts.h"
#include "quant/group_levels.h"

namespace edgewise {
namespace {

constexpr size_t kRows = kFeedbackRows;
constexpr size_t kPanelColumns = 256;  // that coordinate descent takes together, at least
constexpr int kRoundsOfBlock = 2;  // over the integers and scales of a block before the next one

float Dot(const float* a, const float* b, size_t n) { return kernels::Active().dot_f32(a, b, n); }

// Sums of each row of H over the columns of each group in the row's own block: what a change of a
// group's minimum, the same for all its columns, does to the slopes.
class GroupSums {
 public:
  GroupSums(const ErrorMetric& metric, size_t block, size_t group)
      : groups_(block / group), sums_(metric.n() * groups_) {
    for (size_t i = 0; i < metric.n(); ++i) {
      const float* h = metric.h(i) + i / block * block;
      for (size_t j = 0; j < block; ++j) sums_[i * groups_ + j / group] += h[j];
    }
  }
  // Of row i of H: (groups of a block).
  const float* row(size_t i) const { return sums_.data() + i * groups_; }

 private:
  size_t groups_;
  std::vector<float> sums_;
};

// A few rows of the matrix on their way to blocks.
class RowChunk {
 public:
  RowChunk(const float* w, size_t rows, const ErrorMetric& metric, const GroupSums& sums,
           DType type, const FeedbackOptions& options)
      : w_(w),
        rows_(rows),
        n_(metric.n()),
        metric_(metric),
        sums_(sums),
        info_(Info(type)),
        form_(*FormOf(type)),
        options_(options),
        blocks_(n_ / info_.block),
        parts_(rows * blocks_),
        error_(rows * n_) {}

  void Run(std::byte* blocks);
  double error() const { return total_; }

 private:
  struct BlockTrial;
  struct Panel;
  void QuantizeBlock(size_t block);
  void Feed(size_t block, BlockTrial* trial) const;
  void Descend();
  bool DescendPanel(size_t first, size_t count, size_t width, float* gradient, float* changes);
  void MoveValues(size_t row, size_t block, Panel* panel);
  void MoveGroups(size_t row, size_t block, Panel* panel);
  void MoveScales(size_t row, size_t block, Panel* panel);
  void Apply(size_t first, const float* change, size_t count, Panel* panel) const;
  float Curvature(size_t first, const float* a, size_t count) const;

  BlockParts& parts(size_t row, size_t block) { return parts_[row * blocks_ + block]; }

  const float* w_;
  size_t rows_, n_;
  const ErrorMetric& metric_;
  const GroupSums& sums_;
  const DTypeInfo& info_;
  const BlockForm& form_;
  const FeedbackOptions& options_;
  size_t blocks_;
  std::vector<BlockParts> parts_;  // (rows, blocks)
  std::vector<float> error_;       // (rows, n): w - q
  double total_ = 0;
};

// One way to quantize a block of all rows.
struct RowChunk::BlockTrial {
  BlockTrial(size_t rows, size_t size) : parts(rows), target(rows * size), cost(rows) {}
  std::vector<BlockParts> parts;  // scales as given; values by Feed
  std::vector<float> target;      // (rows, block): the weights as feedback left them
  std::vector<double> cost;       // (rows)
};

// Quantizes column by column with the trial's scales. `target` comes with what the blocks before
// ask for, and leaves with what the columns before ask for too.
void RowChunk::Feed(size_t block, BlockTrial* trial) const {
  const size_t size = info_.block, first = block * size;
  std::vector<float> deltas(size * rows_);  // (block, rows)
  float sums[kRows];
  std::fill(trial->cost.begin(), trial->cost.end(), 0.0);
  for (size_t j = 0; j < size; ++j) {
    const float* factor = metric_.factor(first + j) + first;
    std::fill_n(sums, rows_, 0.0f);
    for (size_t i = 0; i < j; ++i) {
      const float* delta = deltas.data() + i * rows_;
      for (size_t r = 0; r < rows_; ++r) sums[r] += factor[i] * delta[r];
    }
    const float pivot = factor[j], inverse = 1.0f / pivot;
    for (size_t r = 0; r < rows_; ++r) {
      float& target = trial->target[r * size + j];
      target += sums[r] * inverse;
      BlockParts& parts = trial->parts[r];
      const GroupLevels levels = LevelsOf(parts, j / form_.group);
      parts.value[j] = MayBeSet(info_, parts, j) ? Nearest(form_, levels, target) : int8_t{0};
      const float value = levels.scale * static_cast<float>(parts.value[j]) - levels.offset;
      deltas[j * rows_ + r] = w_[r * n_ + first + j] - value;
      const double off = static_cast<double>(pivot) * (target - value);
      trial->cost[r] += off * off;
    }
  }
}

void RowChunk::QuantizeBlock(size_t block) {
  const size_t size = info_.block, first = block * size;
  // What the blocks before ask for.
  std::vector<float> base(rows_ * size);
  if (block > 0) {
    MultiplyTransposed(metric_.factor(first), n_, size, error_.data(), n_, rows_, first,
                       base.data(), size);
  }
  std::vector<float> weights(rows_ * size);
  for (size_t j = 0; j < size; ++j) {
    const float pivot = metric_.factor(first + j)[first + j];
    for (size_t r = 0; r < rows_; ++r) {
      float& x = base[r * size + j];
      x = w_[r * n_ + first + j] + x / pivot;
      weights[r * size + j] = pivot * pivot;
    }
  }
  std::vector<std::byte> encoded(rows_ * info_.block_bytes);
  BlockTrial best(rows_, size), trial(rows_, size);
  std::vector<float> fitted = base;
  for (int fit = 0; fit < options_.fits; ++fit) {
    info_.encode(fitted.data(), weights.data(), encoded.data(), rows_ * size);
    for (size_t r = 0; r < rows_; ++r) {
      form_.unpack(encoded.data() + r * info_.block_bytes, &trial.parts[r]);
    }
    trial.target = base;
    Feed(block, &trial);
    for (size_t r = 0; r < rows_; ++r) {
      if (fit > 0 && trial.cost[r] >= best.cost[r]) continue;
      best.parts[r] = trial.parts[r];
      best.cost[r] = trial.cost[r];
    }
    fitted = trial.target;
  }
  for (size_t r = 0; r < rows_; ++r) {
    parts(r, block) = best.parts[r];
    for (size_t j = 0; j < size; ++j) {
      const GroupLevels levels = LevelsOf(best.parts[r], j / form_.group);
      error_[r * n_ + first + j] =
          w_[r * n_ + first + j] -
          (levels.scale * static_cast<float>(best.parts[r].value[j]) - levels.offset);
    }
  }
}

// The columns at work in coordinate descent, of one row.
struct RowChunk::Panel {
  size_t first, count;
  float* gradient;  // (count): -1/2 of the error's slope for each value, kept up to date here only
  float* change;    // (count): by how much the quantized values have grown
  bool moved = false;
};

// The quantized values of columns [first, first + count) of the panel's row grow by `change`.
void RowChunk::Apply(size_t first, const float* change, size_t count, Panel* panel) const {
  for (size_t i = 0; i < count; ++i) {
    if (change[i] == 0) continue;
    panel->change[first + i - panel->first] += change[i];
    const float* h = metric_.h(first + i) + panel->first;
    const float by = change[i];
    for (size_t j = 0; j < panel->count; ++j) panel->gradient[j] -= by * h[j];
  }
  panel->moved = true;
}

// a^T H a for a vector on columns [first, first + count).
float RowChunk::Curvature(size_t first, const float* a, size_t count) const {
  float sum = 0;
  for (size_t i = 0; i < count; ++i) {
    if (a[i] != 0) sum += a[i] * Dot(metric_.h(first + i) + first, a, count);
  }
  return sum;
}

// Moves single integers of the grid to where the error is least.
void RowChunk::MoveValues(size_t row, size_t block, Panel* panel) {
  BlockParts& p = parts(row, block);
  for (size_t j = 0; j < info_.block; ++j) {
    const GroupLevels levels = LevelsOf(p, j / form_.group);
    if (levels.scale == 0 || !MayBeSet(info_, p, j)) continue;
    const size_t column = block * info_.block + j;
    const float slope = panel->gradient[column - panel->first];
    const float curvature = metric_.h(column)[column];
    const float before = levels.scale * static_cast<float>(p.value[j]) - levels.offset;
    const int8_t value = Nearest(form_, levels, before + slope / curvature);
    if (value == p.value[j]) continue;
    const float change = levels.scale * static_cast<float>(value - p.value[j]);
    if (change * (change * curvature - 2 * slope) >= 0) continue;
    p.value[j] = value;
    Apply(column, &change, 1, panel);
  }
}

// Moves the integers of group scales and minima by one.
void RowChunk::MoveGroups(size_t row, size_t block, Panel* panel) {
  const size_t group = form_.group;
  BlockParts& p = parts(row, block);
  const float d = HalfToFloat(p.d), dmin = HalfToFloat(p.dmin);
  for (size_t g = 0; g < info_.block / group; ++g) {
    const size_t first = block * info_.block + g * group;
    float by_scale[32], by_min[32];
    for (size_t j = 0; j < group; ++j) {
      by_scale[j] = d * static_cast<float>(p.value[g * group + j]);
      by_min[j] = -dmin;
    }
    const auto try_move = [&](int16_t* integer, int low, int high, const float* by,
                              float curvature) {
      const float slope = Dot(by, panel->gradient + (first - panel->first), group);
      const int step = slope > 0 ? 1 : -1;
      if (*integer + step < low || *integer + step > high) return;
      if (curvature - 2 * std::fabs(slope) >= 0) return;
      float change[32];
      for (size_t j = 0; j < group; ++j) change[j] = static_cast<float>(step) * by[j];
      *integer = static_cast<int16_t>(*integer + step);
      Apply(first, change, group, panel);
    };
    if (form_.scale_low < form_.scale_high && d != 0) {
      try_move(&p.scale[g], form_.scale_low, form_.scale_high, by_scale,
               Curvature(first, by_scale, group));
    }
    if (form_.min_low < form_.min_high && dmin != 0) {
      float sum = 0;
      for (size_t j = 0; j < group; ++j) sum += sums_.row(first + j)[g];
      try_move(&p.min[g], form_.min_low, form_.min_high, by_min, dmin * dmin * sum);
    }
  }
}

// Refits the halves of a block to its integers.
void RowChunk::MoveScales(size_t row, size_t block, Panel* panel) {
  const size_t size = info_.block, first = block * size;
  BlockParts& p = parts(row, block);
  const size_t groups = size / form_.group;
  float a[256], b[256], change[256];
  bool offsets = false;
  for (size_t j = 0; j < size; ++j) {
    const size_t g = j / form_.group;
    a[j] = static_cast<float>(p.scale[g]) * static_cast<float>(p.value[j]);
    b[j] = -static_cast<float>(p.min[g]);
    offsets = offsets || p.min[g] != 0;
  }
  const float* gradient = panel->gradient + (first - panel->first);
  const double ag = Dot(a, gradient, size), bg = Dot(b, gradient, size);
  const double aa = Curvature(first, a, size);
  double ab = 0, bb = 0;
  for (size_t j = 0; j < size && offsets; ++j) {
    float hb = 0;
    for (size_t g = 0; g < groups; ++g) {
      hb -= static_cast<float>(p.min[g]) * sums_.row(first + j)[g];
    }
    ab += a[j] * hb;
    bb += b[j] * hb;
  }
  if (!(aa > 0)) return;
  double step = ag / aa, step_min = 0;
  const double determinant = aa * bb - ab * ab;
  if (offsets && determinant > 1e-6 * aa * bb) {
    step = (bb * ag - ab * bg) / determinant;
    step_min = (aa * bg - ab * ag) / determinant;
  }
  const float d = HalfToFloat(p.d), dmin = HalfToFloat(p.dmin);
  const uint16_t half = FloatToHalf(d + static_cast<float>(step));
  const uint16_t half_min = offsets ? FloatToHalf(dmin + static_cast<float>(step_min)) : p.dmin;
  const double by = HalfToFloat(half) - d, by_min = HalfToFloat(half_min) - dmin;
  const double gain =
      2 * (by * ag + by_min * bg) - (by * by * aa + 2 * by * by_min * ab + by_min * by_min * bb);
  if (!std::isfinite(gain) || !(gain > 0)) return;
  for (size_t j = 0; j < size; ++j) {
    change[j] = static_cast<float>(by) * a[j] + static_cast<float>(by_min) * b[j];
  }
  p.d = half;
  p.dmin = half_min;
  Apply(first, change, size, panel);
}

// Moves what lies in columns [first, first + count), row by row; `changes` (rows, width) takes by
// how much values grow. Returns whether any did.
bool RowChunk::DescendPanel(size_t first, size_t count, size_t width, float* gradient,
                            float* changes) {
  bool moved = false;
  for (size_t r = 0; r < rows_; ++r) {
    Panel panel{first, count, gradient + r * n_ + first, changes + r * width};
    for (size_t block = first / info_.block; block * info_.block < first + count; ++block) {
      for (int round = 0; round < kRoundsOfBlock; ++round) {
        MoveValues(r, block, &panel);
        MoveGroups(r, block, &panel);
      }
      MoveScales(r, block, &panel);
    }
    moved = moved || panel.moved;
  }
  return moved;
}

// Goes through all columns panel by panel. What a panel's changes mean for the other columns is one
// product for all rows, so that H is read once for them.
void RowChunk::Descend() {
  const size_t width = std::max<size_t>(info_.block, kPanelColumns);
  std::vector<float> gradient(rows_ * n_), changes(rows_ * width), products(rows_ * n_);
  MultiplyTransposed(metric_.h(0), n_, n_, error_.data(), n_, rows_, n_, gradient.data(), n_);
  bool moved = true;
  for (int round = 0; round < options_.descents && moved; ++round) {
    moved = false;
    for (size_t first = 0; first < n_; first += width) {
      const size_t count = std::min(width, n_ - first);
      std::fill(changes.begin(), changes.end(), 0.0f);
      if (!DescendPanel(first, count, width, gradient.data(), changes.data())) continue;
      moved = true;
      MultiplyTransposed(metric_.h(0) + first, n_, n_, changes.data(), width, rows_, count,
                         products.data(), n_);
      for (size_t r = 0; r < rows_; ++r) {
        float* mine = gradient.data() + r * n_;
        const float* product = products.data() + r * n_;
        for (size_t j = 0; j < first; ++j) mine[j] -= product[j];
        for (size_t j = first + count; j < n_; ++j) mine[j] -= product[j];
        for (size_t j = 0; j < count; ++j) error_[r * n_ + first + j] -= changes[r * width + j];
      }
    }
  }
  for (size_t r = 0; r < rows_; ++r) {
    total_ += Dot(error_.data() + r * n_, gradient.data() + r * n_, n_);
  }
}

void RowChunk::Run(std::byte* blocks) {
  for (size_t block = 0; block < blocks_; ++block) QuantizeBlock(block);
  Descend();
  for (size_t i = 0; i < parts_.size(); ++i) form_.pack(parts_[i], blocks + i * info_.block_bytes);
}

}  // namespace

double QuantizeWithFeedback(const float* w, size_t rows, const ErrorMetric& metric, DType type,
                            const FeedbackOptions& options, ThreadPool* pool, std::byte* blocks) {
  const DTypeInfo& info = Info(type);
  EW_CHECK(FormOf(type) != nullptr && metric.n() % info.block == 0);
  const GroupSums sums(metric, info.block, FormOf(type)->group);
  const size_t chunks = (rows + kRows - 1) / kRows;
  std::vector<double> errors(chunks);
  pool->ParallelFor(chunks, 1, [&](size_t begin, size_t end, int) {
    for (size_t i = begin; i < end; ++i) {
      const size_t first = i * kRows;
      RowChunk chunk(w + first * metric.n(), std::min(kRows, rows - first), metric, sums, type,
                     options);
      chunk.Run(blocks + first * info.RowBytes(metric.n()));
      errors[i] = chunk.error();
    }
  });
  double total = 0;
  for (const double error : errors) total += error;
  return total;
}

uint64_t FeedbackBytes(size_t n, DType type, int threads) {
  const DTypeInfo& info = Info(type);
  const size_t width = std::max<size_t>(info.block, kPanelColumns);
  const uint64_t metric = 2 * n * n * sizeof(float);
  const uint64_t sums = n * (info.block / FormOf(type)->group) * sizeof(float);
  // A chunk's errors, gradients, products and changes, and its blocks taken apart.
  const uint64_t chunk =
      kRows * ((3 * n + width) * sizeof(float) + n / info.block * sizeof(BlockParts));
  return metric + sums + static_cast<uint64_t>(threads) * chunk;
}

}  // namespace edgewise
