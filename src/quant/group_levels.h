// GroupLevels: the values that a group of a block can have by its scale and offset, and which of
// them is nearest.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/half.h"
#include "quant/block_parts.h"
#include "quant/dtype.h"

namespace edgewise {

// A value of the group is scale * q - offset, with q of the format's grid.
struct GroupLevels {
  float scale, offset;

  // The q, of no grid, that gives x. Needs a scale other than 0.
  float Exact(float x) const { return (x + offset) / scale; }
};

inline GroupLevels LevelsOf(const BlockParts& parts, size_t group) {
  return {HalfToFloat(parts.d) * static_cast<float>(parts.scale[group]),
          HalfToFloat(parts.dmin) * static_cast<float>(parts.min[group])};
}

// The grid value whose level is nearest to x, which is finite.
inline int8_t Nearest(const BlockForm& form, const GroupLevels& levels, float x) {
  if (levels.scale == 0) return form.grid != nullptr ? form.grid[8] : 0;
  const float q = levels.Exact(x);
  if (form.grid == nullptr) {
    const float limited =
        std::clamp(q, static_cast<float>(form.low), static_cast<float>(form.high));
    return static_cast<int8_t>(std::nearbyintf(limited));
  }
  int best = 0;
  while (best < 15 && q > 0.5f * static_cast<float>(form.grid[best] + form.grid[best + 1])) ++best;
  return form.grid[best];
}

// False for the values that a sparse block leaves out.
inline bool MayBeSet(const DTypeInfo& info, const BlockParts& parts, size_t j) {
  return !info.sparse() || (parts.kept >> j & 1) != 0;
}

}  // namespace edgewise
