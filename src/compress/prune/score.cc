#include "compress/prune/score.h"

#include <cmath>

#include "base/rng.h"
#include "base/strings.h"
#include "compress/quantize/output_error.h"

namespace edgewise {
namespace {

// 1 / x, and 0 for the sum of a row or column without weights.
double InverseOrZero(double x) { return x > 0 ? 1 / x : 0; }

void RiaScores(std::span<const float> w, std::span<const float> norms, std::vector<float>* scores) {
  const size_t columns = norms.size(), rows = w.size() / columns;
  std::vector<double> row_sums(rows), column_sums(columns);
  for (size_t i = 0; i < w.size(); ++i) {
    row_sums[i / columns] += std::fabs(w[i]);
    column_sums[i % columns] += std::fabs(w[i]);
  }
  for (double& sum : row_sums) sum = InverseOrZero(sum);
  for (double& sum : column_sums) sum = InverseOrZero(sum);
  for (size_t i = 0; i < w.size(); ++i) {
    const double relative = row_sums[i / columns] + column_sums[i % columns];
    const double root = std::sqrt(static_cast<double>(norms[i % columns]));
    (*scores)[i] = static_cast<float>(std::fabs(w[i]) * relative * root);
  }
}

}  // namespace

bool NeedsNorms(ScoreMethod method) {
  return method == ScoreMethod::kWanda || method == ScoreMethod::kRia;
}

std::vector<float> ColumnNorms(const ColumnMoments& moments) {
  std::vector<float> norms(moments.columns());
  for (size_t c = 0; c < norms.size(); ++c) {
    norms[c] = static_cast<float>(std::sqrt(moments.sum_squares[c]));
  }
  return norms;
}

Result<std::vector<float>> Scores(ScoreMethod method, std::span<const float> w, size_t columns,
                                  std::span<const float> norms, uint64_t seed) {
  EW_TRY(CheckFinite("to prune", w, columns));
  if (NeedsNorms(method) && norms.size() != columns) {
    return MakeError(Code::kInvalidArgument,
                     "the calibration has norms of %zu input columns and the matrix has %zu: "
                     "calibrate this model",
                     norms.size(), columns);
  }
  std::vector<float> scores(w.size());
  Rng rng(seed);
  switch (method) {
    case ScoreMethod::kMagnitude:
      for (size_t i = 0; i < w.size(); ++i) scores[i] = std::fabs(w[i]);
      break;
    case ScoreMethod::kRandom:
      for (float& score : scores) score = static_cast<float>(rng.Uniform());
      break;
    case ScoreMethod::kWanda:
      for (size_t i = 0; i < w.size(); ++i) scores[i] = std::fabs(w[i]) * norms[i % columns];
      break;
    case ScoreMethod::kRia:
      RiaScores(w, norms, &scores);
      break;
  }
  EW_TRY(CheckFinite("of pruning scores", scores, columns));
  return scores;
}

}  // namespace edgewise
