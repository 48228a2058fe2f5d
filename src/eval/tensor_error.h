// How far the values of each tensor of a compressed model are from its base's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "eval/rounding.h"
#include "model/checkpoint.h"
#include "quant/dtype.h"

namespace edgewise {

struct TensorError {
  std::string name;
  DType base_dtype = DType::kF32, dtype = DType::kF32;
  uint64_t values = 0;
  double relative_rmse = 0;     // root of sum (w - q)^2 / sum w^2; 0 where both are zero
  double cosine = 1;            // of all values as one vector
  RoundingPositions positions;  // of quantized matrices whose values are evenly spaced
};

// Compares each tensor of `base` with the one of the same name, row by row, so that memory stays
// small. The result does not depend on the number of threads. Errors: kInvalidArgument (a tensor
// that only one has, or of another shape, named), those of Checkpoint::Load, kCancelled.
Result<std::vector<TensorError>> CompareTensors(const Checkpoint& base,
                                                const Checkpoint& compressed, ThreadPool* pool,
                                                Progress* progress);

}  // namespace edgewise
