// Bit allocation: one format for each tensor so that the whole costs least within a number of
// bytes, a multiple-choice knapsack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "compress/quantize/sensitivity.h"

namespace edgewise {

struct FormatChoice {
  uint64_t bytes;
  double cost;
};
using TensorChoices = std::vector<FormatChoice>;  // not empty

// Returns the index of a choice for each tensor: the sum of bytes is at most `budget` and the sum
// of costs least. Exact by dynamic programming where all sizes are multiples of budget / 2^17 or
// more; else sizes are rounded up to such units and what is left over goes where it helps most.
// Errors: kInvalidArgument (even the smallest choices need more).
Result<std::vector<size_t>> Allocate(std::span<const TensorChoices> tensors, uint64_t budget);

// What a file is to take.
struct FileTarget {
  uint64_t bytes;      // of the whole file, at most
  uint64_t planned;    // of the file as its plan is before formats are chosen
  uint64_t alignment;  // of tensors
};

// Errors: kInvalidArgument (below the smallest formats that `plan` may get or above F16; both
// bounds are named).
Status CheckTarget(const FileTarget& target, std::span<const TensorPlan> plan);

// Gives `entry` a format that was chosen by its cost.
void SetChosen(const FormatCost& format, TensorPlan* entry);

// Gives the entries of `plan` that `costs` are of the formats that cost least within the target.
// Errors: those of CheckTarget.
Status AllocateFormats(std::span<const TensorCosts> costs, const FileTarget& target,
                       std::vector<TensorPlan>* plan);

}  // namespace edgewise
