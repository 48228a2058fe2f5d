// Scratch memory and the work split of the forward pass.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"
#include "model/weights.h"
#include "tensor/tensor.h"

namespace edgewise {

// Below about this many multiply-adds a step is done before another thread has woken.
inline constexpr size_t kSerialWork = size_t{1} << 20;

// Rows of floats, 64-byte aligned.
class FloatRows {
 public:
  // Errors: kOutOfMemory, kBadData (the size overflows).
  Status Resize(size_t rows, size_t columns);
  float* row(size_t i) { return data_ + i * columns_; }
  size_t columns() const { return columns_; }

 private:
  Tensor memory_;
  float* data_ = nullptr;
  size_t columns_ = 0;
};

// The inputs of linear layers, one row per token, each kept in every format that a kernel asks for
// so that layers with the same input share one quantization.
class Activations {
 public:
  Status Resize(size_t rows, size_t max_columns);
  // Starts a new set of rows of `columns` values.
  void Begin(size_t columns) { columns_ = columns; }
  // Where row i's floats are to be written before Finish(i).
  float* floats(size_t i) { return reinterpret_cast<float*>(Row(kernels::ActFormat::kF32, i)); }
  // Makes row i available to all of `users`.
  void Finish(size_t i, std::span<const Linear* const> users);
  const std::byte* Row(kernels::ActFormat format, size_t i) const;
  size_t Stride(kernels::ActFormat format) const { return kernels::ActRowBytes(format, columns_); }

 private:
  static constexpr size_t kFormats = 2;
  std::byte* Row(kernels::ActFormat format, size_t i);
  Tensor memory_[kFormats];
  size_t columns_ = 0;
};

// One linear layer on rows [first, first + n) of the activations.
struct LinearJob {
  const Linear* linear;
  size_t first;
  size_t n;
  float* y;         // (n, linear->rows)
  size_t y_stride;  // floats
};

// Runs all jobs, split over the pool by weight rows, and by tokens where rows are few. The bias is
// not added.
void RunLinears(std::span<const LinearJob> jobs, const Activations& input, ThreadPool* pool);

// Runs body(i) for 0 <= i < count, in parallel where count * work_each is worth it.
template <class Body>
void ForEach(size_t count, size_t work_each, ThreadPool* pool, Body&& body) {
  if (pool->size() == 1 || count < 2 || count * work_each < kSerialWork) {
    for (size_t i = 0; i < count; ++i) body(i);
    return;
  }
  const size_t grain = std::max<size_t>(1, count / (static_cast<size_t>(pool->size()) * 8));
  pool->ParallelFor(count, grain, [&](size_t begin, size_t end, int) {
    for (size_t i = begin; i < end; ++i) body(i);
  });
}

}  // namespace edgewise
