// RuntimeTeacher: a teacher that the runtime runs, on the weights as they are packed for its
// kernels.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/model.h"
#include "train/batch.h"
#include "train/loss.h"

namespace edgewise::train {

// Its logits are those of edgewise run, bit for bit, for any batch. Not thread-safe; model and pool
// must outlive it, and a batch the calls of Logits.
class RuntimeTeacher final : public Teacher {
 public:
  // `sequence`: tokens of the longest sequence. Errors: those of KvCache::Create.
  static Result<std::unique_ptr<RuntimeTeacher>> Create(const Model& model, uint32_t sequence,
                                                        ThreadPool* pool);
  Status Begin(const Batch& batch) override;
  // Errors: those of ForwardPass::Run.
  Status Logits(std::span<const uint32_t> rows, float* logits) override;

 private:
  RuntimeTeacher(const Model& model, KvCache cache, ThreadPool* pool)
      : vocab_size_(model.spec().vocab_size), cache_(std::move(cache)), forward_(model, pool) {}
  size_t vocab_size_;
  KvCache cache_;
  ForwardPass forward_;
  const Batch* batch_ = nullptr;
  size_t sequence_ = 0;         // that is being read
  size_t begin_ = 0, end_ = 0;  // its rows
};

}  // namespace edgewise::train
