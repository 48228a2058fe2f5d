// Integer codes with a scale and a zero point for each group of columns, as GPTQ and AWQ store
// them: x = scale * (code - zero).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace edgewise::quant {

struct GroupGrid {
  uint32_t bits = 4;      // 2 to 8
  bool symmetric = true;  // zero is 2^(bits - 1); else fitted
  uint8_t lowest_zero = 0;
};

// Fits every group of a matrix of finite `values` (rows, columns), `group` columns each, by a
// search for the least squared error, weighted by `weights` (columns; null: 1 each). Scales are
// halves, not negative, and codes the nearest ones for them. Writes `scales` and `zeros` (rows,
// columns / group) and `codes` (rows, columns). A group's result depends on nothing else.
void FitGroups(std::span<const float> values, size_t columns, size_t group, const float* weights,
               const GroupGrid& grid, uint16_t* scales, uint8_t* zeros, uint8_t* codes);

}  // namespace edgewise::quant
