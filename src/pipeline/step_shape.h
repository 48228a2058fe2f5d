// The linear layers of a decode step, from which its time is predicted.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "eval/linear_timer.h"
#include "model/spec.h"
#include "pipeline/convert.h"

namespace edgewise {

// And the weights that stay in memory for it.
struct StepShape {
  std::vector<LinearGroup> groups;
  uint64_t read_bytes = 0;      // of the groups
  uint64_t resident_bytes = 0;  // of all tensors but an embedding of which rows are looked up
};

// Of a model whose tensors are these.
StepShape ShapeOf(const ModelSpec& spec, std::span<const ConvertedTensor> tensors);

// The seconds of all groups. Errors: those of LinearTimer::Seconds.
Result<double> LinearSeconds(const StepShape& shape, LinearTimer* timer);

}  // namespace edgewise
