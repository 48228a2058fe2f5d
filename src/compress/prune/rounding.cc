#include "compress/prune/rounding.h"

#include <algorithm>
#include <cmath>

#include "base/half.h"
#include "base/strings.h"
#include "quant/group_fit.h"

namespace edgewise {

Result<IntegerRounder> IntegerRounder::Create(uint32_t bits, size_t group, size_t rows,
                                              size_t columns) {
  if (bits < 2 || bits > 8 || group == 0 || columns % group != 0) {
    return MakeError(Code::kInvalidArgument,
                     "integers of %u bits with a scale for each %zu of %zu columns: bits must be 2 "
                     "to 8, and groups must divide the row",
                     bits, group, columns);
  }
  IntegerRounder rounder;
  rounder.group_ = group;
  rounder.row_groups_ = columns / group;
  rounder.bits_ = bits;
  rounder.scales_.resize(rows * rounder.row_groups_);
  return rounder;
}

// A pruned weight is exact on any scale, so its zero does not move the fit.
void IntegerRounder::Fit(size_t first_row, size_t first, std::span<const float> weights) {
  const size_t rows = weights.size() / group_;
  std::vector<uint16_t> scales(rows);
  std::vector<uint8_t> codes(weights.size()), zeros(rows);
  quant::FitGroups(weights, group_, group_, nullptr, {.bits = bits_, .symmetric = true},
                   scales.data(), zeros.data(), codes.data());
  for (size_t r = 0; r < rows; ++r) {
    scales_[(first_row + r) * row_groups_ + first / group_] = scales[r];
  }
}

float IntegerRounder::Round(size_t row, size_t column, float x) const {
  const float scale = HalfToFloat(scales_[row * row_groups_ + column / group_]);
  if (scale == 0) return 0;
  const auto high = static_cast<float>((1u << (bits_ - 1)) - 1);
  return scale * std::clamp(std::nearbyintf(x / scale), -high - 1, high);
}

}  // namespace edgewise
