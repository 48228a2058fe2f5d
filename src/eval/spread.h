// The median and the spread about it: what is usual, whatever the outliers are.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "eval/percentile.h"

namespace edgewise {

struct Spread {
  double median = 0;
  double mad = 0;  // median absolute deviation from the median
};

// `values` must not be empty.
inline Spread MeasureSpread(std::vector<double> values) {
  Spread spread;
  spread.median = Percentile(values, 0.5);
  for (double& value : values) value = std::fabs(value - spread.median);
  spread.mad = Percentile(std::move(values), 0.5);
  return spread;
}

}  // namespace edgewise
