// The percentile of MLPerf's load generator.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "base/check.h"

namespace edgewise {

// Returns sorted[int(n * p)]; `sorted` must not be empty and ascend, 0 <= p < 1.
inline double SortedPercentile(std::span<const double> sorted, double p) {
  EW_CHECK(!sorted.empty() && p >= 0 && p < 1);
  return sorted[static_cast<size_t>(static_cast<double>(sorted.size()) * p)];
}

// The same for values in any order.
inline double Percentile(std::vector<double> values, double p) {
  std::sort(values.begin(), values.end());
  return SortedPercentile(values, p);
}

}  // namespace edgewise
