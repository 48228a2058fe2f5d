// Times the linear layers of a decode step in any number format, without a model in that format:
// the products of the forward pass itself, on weights that come from cache or memory as a model's
// would.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "quant/dtype.h"
#include "tensor/tensor.h"

namespace edgewise {

struct LinearShape {
  DType type = DType::kF32;
  uint64_t rows = 0, columns = 0;
  auto operator<=>(const LinearShape&) const = default;
};
// Linear layers that have the same input, which the forward pass runs together.
using LinearGroup = std::vector<LinearShape>;

// Bytes of its weights, as the kernels read them.
uint64_t GroupBytes(const LinearGroup& group);

class LinearTimer {
 public:
  // The most memory that weights are read from, far more than caches hold.
  static constexpr uint64_t kMaxBuffer = 512ull << 20;

  // Takes min(largest_model, kMaxBuffer) bytes of memory, `largest_model` being the most bytes of
  // weights that a decode step reads. `pool` must outlive it. Errors: kOutOfMemory.
  static Result<LinearTimer> Create(uint64_t largest_model, ThreadPool* pool);

  // Median seconds of one token through `group` in a model whose decode step reads `model_bytes`.
  // Errors: kUnsupported (a format without a kernel), kOutOfMemory.
  Result<double> Seconds(const LinearGroup& group, uint64_t model_bytes);

 private:
  LinearTimer(Tensor weights, ThreadPool* pool) : weights_(std::move(weights)), pool_(pool) {}
  Tensor weights_;
  ThreadPool* pool_;
  std::map<std::pair<LinearGroup, uint64_t>, double> known_;  // by group and copies
};

}  // namespace edgewise
