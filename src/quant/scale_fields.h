// ScaleFields: where a block keeps the halves that all of its values are multiples of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/dtype.h"

namespace edgewise {

// Returns the offsets in a block, in bytes, of its scale d and, where the format has one, of its
// offset m or dmin: every value is d a + m b, with a and b of the rest of the block alone. Empty:
// no block format.
std::span<const uint8_t> ScaleFieldsOf(DType type);

}  // namespace edgewise
