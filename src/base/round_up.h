#pragma once

#include <cstdint>

namespace edgewise {

// Returns the smallest multiple of `step` that is not below `value`; the sum must not overflow.
constexpr uint64_t RoundUp(uint64_t value, uint64_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace edgewise
