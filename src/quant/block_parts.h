// BlockParts: a block of any quantized format taken apart into scales and integers, for quantizers
// that choose them jointly over a whole row instead of block by block.
#pragma once

#include <cstdint>

#include "quant/dtype.h"

namespace edgewise {

// x[j] = d * scale[j / group] * value[j] - dmin * min[j / group]
struct BlockParts {
  uint16_t d = 0, dmin = 0;  // halves
  int16_t scale[16] = {};    // per group
  int16_t min[16] = {};
  int8_t value[256] = {};  // of the format's grid
  // Of sparse formats: bit j where value j may be other than 0.
  uint64_t kept = 0;
};

// What a format can hold. Legacy formats have one group whose scale is 1, and min 1 where they have
// an offset (-dmin).
struct BlockForm {
  uint32_t group;      // values per group
  int16_t low, high;   // of the grid
  const int8_t* grid;  // the 16 values of IQ4_NL; null: all integers from low to high
  int16_t scale_low, scale_high;
  int16_t min_low, min_high;  // both 0: no offsets
  void (*unpack)(const void* block, BlockParts* parts);
  void (*pack)(const BlockParts& parts, void* block);  // every number within its limits
};

// Null for formats that are not quantized in blocks, or whose blocks leave out values.
const BlockForm* FormOf(DType type);

}  // namespace edgewise
