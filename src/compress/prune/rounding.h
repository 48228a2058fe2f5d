// Rounding of the weights that pruning keeps, in the same sweep as the pruning itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace edgewise {

// A number format of whose parameters each group of consecutive columns of a row has its own.
// Called for different rows from different threads at the same time, for a row by rising column.
class GroupRounder {
 public:
  virtual ~GroupRounder() = default;
  // Columns of a group: a divisor of the columns that SparseGPT takes together (SweepColumns).
  virtual size_t group() const = 0;
  // Fits the parameters of the groups that begin at column `first`, of consecutive rows from
  // `first_row` on, to `weights` (rows, group) as the columns before have left them; those about to
  // be pruned are 0.
  virtual void Fit(size_t first_row, size_t first, std::span<const float> weights) = 0;
  // Returns what the format makes of weight `x`, whose group is fitted.
  virtual float Round(size_t row, size_t column, float x) const = 0;
};

// Integers of `bits` bits, -2^(bits-1) to 2^(bits-1) - 1, times a half-precision scale for each
// group, fitted by least squares.
class IntegerRounder final : public GroupRounder {
 public:
  // Errors: kInvalidArgument (bits not 2 to 8, or `group` does not divide `columns`).
  static Result<IntegerRounder> Create(uint32_t bits, size_t group, size_t rows, size_t columns);
  size_t group() const override { return group_; }
  void Fit(size_t first_row, size_t first, std::span<const float> weights) override;
  float Round(size_t row, size_t column, float x) const override;
  // The scales (rows, columns / group), as halves >= 0. A weight is an exact multiple of its own.
  std::span<const uint16_t> scales() const { return scales_; }

 private:
  IntegerRounder() = default;
  size_t group_ = 0, row_groups_ = 0;
  uint32_t bits_ = 0;
  std::vector<uint16_t> scales_;
};

}  // namespace edgewise
