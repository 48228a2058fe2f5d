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

// What a file is to take, and how much of it is fixed.
struct FileTarget {
  uint64_t bytes;      // of the whole file, at most
  uint64_t other;      // of everything but the tensors to choose for
  uint64_t alignment;  // of tensors
};

// Gives the entries of `plan` that `costs` are of the formats that cost least within the target.
// Errors: kInvalidArgument (below the smallest formats or above F16; both bounds are named).
Status AllocateFormats(std::span<const TensorCosts> costs, const FileTarget& target,
                       std::vector<TensorPlan>* plan);

// Bytes of a tensor with `shape` in a file: a multiple of `alignment`.
uint64_t AlignedBytes(DType type, const Shape& shape, uint64_t alignment);

}  // namespace edgewise
