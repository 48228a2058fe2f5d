// Which layers see a sliding window only.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "model/spec.h"

namespace edgewise {

// Period 0 means that no layer slides, 1 that all do, p that every p-th sees everything.
inline void SetSliding(uint32_t window, uint32_t period, ModelSpec* spec) {
  const bool slides = period != 0 && window != 0;
  spec->sliding_window = slides ? window : 0;
  spec->sliding_period = slides ? period : 1;
}

// Finds the period of `slides` (one flag per layer), preferring `default_period` where it fits.
// Errors: kUnsupported (no period gives this pattern).
Status SetSlidingPattern(const std::vector<bool>& slides, uint32_t window, uint32_t default_period,
                         ModelSpec* spec);

}  // namespace edgewise
