// How a table is chosen; apart from kernels.h so that tests can try any name.
#pragma once

#include <span>
#include <string>

#include "kernels/kernels.h"

namespace edgewise::kernels {

inline constexpr size_t kMaxLevels = 7;

struct Level {
  const Kernels* own;  // null entries: those of the best level below that runs here
  bool (*runs_here)();
};

struct Selection {
  Kernels tables[kMaxLevels];  // those that run here, slowest first, entries filled
  size_t count = 0;
  size_t active = 0;
  std::string error;  // empty when `forced` was null or named one of the tables
};

// Builds the tables of those of at most kMaxLevels levels that run here, and picks the one named
// `forced`, or the last when `forced` is null. `levels`: slowest first; a level may run where one
// below it does not.
Selection Select(std::span<const Level> levels, const char* forced);

// The same over the levels of this program.
Selection Select(const char* forced);

}  // namespace edgewise::kernels
