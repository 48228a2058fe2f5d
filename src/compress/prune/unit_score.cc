#include "compress/prune/unit_score.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/strings.h"
#include "compress/quantize/output_error.h"

namespace edgewise {

UnitStatistics::UnitStatistics(size_t columns, size_t unit_columns,
                               std::span<const std::vector<int32_t>> sequences)
    : unit_columns_(unit_columns),
      sequences_(sequences),
      sums_(columns),
      squares_(columns),
      norms_(columns / unit_columns),
      mean_squares_(columns / unit_columns) {}

void UnitStatistics::Add(const float* rows, size_t n, size_t stride) {
  for (size_t i = 0; i < n; ++i) {
    const float* row = rows + i * stride;
    for (size_t unit = 0; unit < norms_.size(); ++unit) {
      double square = 0;
      for (size_t c = unit * unit_columns_; c < (unit + 1) * unit_columns_; ++c) {
        const double x = row[c];
        sums_[c] += x;
        squares_[c] += x * x;
        square += x * x;
      }
      norms_[unit] += std::sqrt(square);
    }
    if (++position_ < sequences_[sequence_].size()) continue;
    for (size_t unit = 0; unit < norms_.size(); ++unit) {
      const double mean = norms_[unit] / static_cast<double>(position_);
      mean_squares_[unit] += mean * mean;
      norms_[unit] = 0;
    }
    position_ = 0;
    ++sequence_;
  }
  tokens_ += n;
}

std::vector<double> UnitStatistics::MeanSquares() const {
  std::vector<double> means = squares_;
  for (double& mean : means) mean /= static_cast<double>(tokens_);
  return means;
}

std::vector<double> UnitStatistics::Fluctuation(std::span<const double> weights) const {
  std::vector<double> scores(norms_.size());
  const auto tokens = static_cast<double>(tokens_);
  for (size_t c = 0; c < columns(); ++c) {
    const double mean = sums_[c] / tokens;
    const double variance = squares_[c] / tokens - mean * mean;
    scores[c / unit_columns_] += variance < 0 ? 0 : variance * weights[c];
  }
  return scores;
}

std::vector<double> UnitStatistics::Activation() const {
  std::vector<double> scores = mean_squares_;
  for (double& score : scores) score = std::sqrt(score);
  return scores;
}

void AddColumnSquares(std::span<const float> values, std::vector<double>* sums) {
  const size_t columns = sums->size();
  for (size_t i = 0; i < values.size(); i += columns) {
    for (size_t c = 0; c < columns; ++c) {
      (*sums)[c] += static_cast<double>(values[i + c]) * values[i + c];
    }
  }
}

Result<std::vector<double>> WeightSquares(const Checkpoint& model, UnitKind kind,
                                          std::optional<uint32_t> layer) {
  const ModelSpec& spec = model.spec();
  std::vector<double> scores(UnitCount(spec, kind));
  for (size_t i = 0; i < model.tensors().size(); ++i) {
    const CheckpointTensor& tensor = model.tensors()[i];
    const TensorAxes axes = AxesOf(spec, tensor.name);
    if (tensor.shape.rank() != 2 || (layer && axes.layer != layer)) continue;
    const bool by_row = KindOf(axes.rows) == kind, by_column = KindOf(axes.columns) == kind;
    if (!by_row && !by_column) continue;
    EW_TRY(const std::vector<float> values, LoadRows(model, i, SIZE_MAX));
    const size_t columns = tensor.shape.columns();
    if (by_column) {
      std::vector<double> sums(columns);
      AddColumnSquares(values, &sums);
      for (uint32_t c = 0; c < columns; ++c) scores[UnitOf(spec, axes.columns, c)] += sums[c];
    }
    for (size_t at = 0; by_row && at < values.size(); ++at) {
      scores[UnitOf(spec, axes.rows, static_cast<uint32_t>(at / columns))] +=
          static_cast<double>(values[at]) * values[at];
    }
  }
  return scores;
}

std::vector<uint32_t> KeepBest(std::span<const double> scores, size_t count) {
  std::vector<uint32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return std::pair(-scores[a], a) < std::pair(-scores[b], b);
  });
  order.resize(count);
  std::sort(order.begin(), order.end());
  return order;
}

double ScoreShareLost(std::span<const double> scores, std::span<const uint32_t> kept) {
  const double all = std::accumulate(scores.begin(), scores.end(), 0.0);
  double left = 0;
  for (const uint32_t unit : kept) left += scores[unit];
  return all > 0 ? 1 - left / all : 0;
}

Status CheckScores(std::span<const double> scores, const char* what) {
  for (const double score : scores) {
    if (std::isfinite(score)) continue;
    return MakeError(Code::kBadData,
                     "the scores of %s are not finite: the weights are damaged, or calibrate with "
                     "other text",
                     what);
  }
  return Ok{};
}

}  // namespace edgewise
