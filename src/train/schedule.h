// Learning rates by step.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace edgewise::train {

enum class ScheduleKind : uint8_t {
  kCosine,    // falls along half a cosine to the end (Loshchilov and Hutter 2017)
  kWsd,       // stays, then falls in a line to the end (warm-up, stable, decay; Hu et al. 2024)
  kConstant,  // stays
  // Rises by the same factor in each step, from `last` of the peak to it: a range test of learning
  // rates (Smith 2017). No name reads it.
  kRising,
};
// Errors: kInvalidArgument, listing the names: "cosine", "wsd", "constant".
Result<ScheduleKind> ParseSchedule(std::string_view name);
const char* ScheduleName(ScheduleKind kind);

struct Schedule {
  ScheduleKind kind = ScheduleKind::kCosine;
  double peak = 1e-3;
  uint64_t steps = 0;        // in all
  uint64_t warmup = 0;       // steps over which the rate rises in a line
  double last = 0.1;         // share of the peak at the end
  double decay_share = 0.2;  // of the steps: the last part of kWsd

  // Of step 1 <= step <= steps.
  double LearningRate(uint64_t step) const;
  // Errors: kInvalidArgument (a value out of range, named).
  Status Check() const;
};

}  // namespace edgewise::train
