// Encodable: which values a format cannot hold, so that nobody encodes them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/dtype.h"

namespace edgewise {

enum class EncodeFault : uint8_t {
  kNone,
  kNotFinite,  // NaN or infinity
  kOverflow,   // past the half that block formats keep their scales in, or past the format itself
  kDense,      // more of a group of a sparse format is other than 0 than it keeps
};

struct EncodeProblem {
  EncodeFault fault = EncodeFault::kNone;
  size_t at = 0;  // the first such value, or the first value of such a group
};

// Finds what keeps `type`, which has an encoder, from holding `n` values, a multiple of its block.
EncodeProblem FindEncodeProblem(DType type, const float* values, size_t n);

// The same of values that are only copied: those that are not finite.
EncodeProblem FindNotFinite(const float* values, size_t n);

// True when every value that is 0 is 0 again after encoding without importance weights.
bool KeepsZeros(DType type);

}  // namespace edgewise
