// How a table is chosen; apart from kernels.h so that tests can try any name.
#pragma once

#include <string>

#include "kernels/kernels.h"

namespace edgewise::kernels {

inline constexpr size_t kMaxLevels = 3;

struct Selection {
  Kernels tables[kMaxLevels];  // those that run here, slowest first, entries filled
  size_t count = 0;
  size_t active = 0;
  std::string error;  // empty when `forced` was null or named one of the tables
};

// Builds the tables of this CPU and picks the one named `forced`, or the last when `forced` is
// null.
Selection Select(const char* forced);

}  // namespace edgewise::kernels
