// Scores of structural units (structure.h): how much a model loses with each, by its inputs or by
// its weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "compress/prune/structure.h"
#include "model/checkpoint.h"

namespace edgewise {

// What units of `unit_columns` neighbouring columns of a linear layer's input do over sequences.
class UnitStatistics {
 public:
  // Rows come in the order of `sequences`, which must outlive this object.
  UnitStatistics(size_t columns, size_t unit_columns,
                 std::span<const std::vector<int32_t>> sequences);
  // Adds (n, columns) inputs, rows `stride` floats apart.
  void Add(const float* rows, size_t n, size_t stride);

  size_t columns() const { return sums_.size(); }
  // E[x^2] of each column.
  std::vector<double> MeanSquares() const;
  // sum_j Var(x_j) * `weights`_j over the columns of each unit; weights are |W_:j|^2 (FLAP, An et
  // al. 2024).
  std::vector<double> Fluctuation(std::span<const double> weights) const;
  // |x| of each unit, its mean over the tokens of a sequence, the L2 norm of these over sequences
  // (Minitron, Muralidharan et al. 2024).
  std::vector<double> Activation() const;

 private:
  size_t unit_columns_;
  std::span<const std::vector<int32_t>> sequences_;
  size_t sequence_ = 0, position_ = 0;
  uint64_t tokens_ = 0;
  std::vector<double> sums_, squares_;        // (columns)
  std::vector<double> norms_, mean_squares_;  // (units): of this sequence, over all sequences
};

// Adds |W_:j|^2 of (rows, sums->size()) values to the sum of each column j.
void AddColumnSquares(std::span<const float> values, std::vector<double>* sums);

// The squares of all weights that would go with each unit; of one layer, or of the whole model.
// Errors: those of LoadRows.
Result<std::vector<double>> WeightSquares(const Checkpoint& model, UnitKind kind,
                                          std::optional<uint32_t> layer);

// The `count` units with the largest scores, by rising index; of equal ones the first.
std::vector<uint32_t> KeepBest(std::span<const double> scores, size_t count);

// The share of all scores that goes with the units that are not `kept`.
double ScoreShareLost(std::span<const double> scores, std::span<const uint32_t> kept);

// Errors: kBadData (NaN or infinity in `scores`, which are of `what`).
Status CheckScores(std::span<const double> scores, const char* what);

}  // namespace edgewise
