// Model: weights bound to a ModelSpec, and the forward pass over a KV cache.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"
#include "model/checkpoint.h"
#include "model/spec.h"
#include "tensor/tensor.h"

namespace edgewise {

// Immutable after Load, so sessions on several threads may share it.
class Model {
 public:
  // Takes the checkpoint over. Floats and packed matrices stay in the map; block formats in rows
  // are packed for the kernels on the pool's threads, and then their pages of the map are dropped.
  // Errors: those of Checkpoint::Load, kUnsupported (a weight format without a kernel), kBadData (a
  // packed matrix that must be cut inside 16 rows), kOutOfMemory.
  static Result<std::unique_ptr<Model>> Load(Checkpoint checkpoint, ThreadPool* pool);
  ~Model();

  const ModelSpec& spec() const;
  const Checkpoint& checkpoint() const;
  // Bytes of all weights.
  uint64_t weight_bytes() const;
  // Bytes of the weights that Load packed into memory of their own.
  uint64_t copied_bytes() const;
  // Bytes of weights that one decode step reads: all matrices but one row only of an untied
  // embedding.
  uint64_t bytes_per_token() const;

 private:
  friend class ForwardPass;
  struct Impl;
  explicit Model(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Keys and values of one sequence: position = index. Per layer, in `format`: values (capacity,
// n_kv_heads, head_dim); keys (blocks of 32 positions, n_kv_heads) of the blocks of StoreKey.
class KvCache {
 public:
  // Errors: kInvalidArgument (capacity 0, head_dim does not fit the format), kOutOfMemory.
  static Result<KvCache> Create(const ModelSpec& spec, uint32_t capacity, kernels::KvFormat format);
  uint32_t capacity() const { return capacity_; }
  uint32_t size() const { return size_; }  // positions filled
  // Forgets all positions from `size` on (size <= size()).
  void Truncate(uint32_t size);
  uint64_t bytes() const;

 private:
  friend class ForwardPass;
  uint32_t capacity_ = 0;
  uint32_t size_ = 0;
  kernels::KvFormat format_ = kernels::KvFormat::kF16;
  size_t row_bytes_ = 0;               // one head's vector
  size_t position_bytes_ = 0;          // all kv heads of one position
  std::vector<Tensor> keys_, values_;  // per layer
};

// The forward pass with its scratch memory. One per sequence that runs at a time; not thread-safe.
class ForwardPass {
 public:
  // `max_batch` tokens at most are computed together; longer inputs are split. Model and pool must
  // outlive it.
  ForwardPass(const Model& model, ThreadPool* pool, uint32_t max_batch = 512);
  ForwardPass(ForwardPass&&) noexcept;
  ForwardPass& operator=(ForwardPass&&) noexcept;
  ~ForwardPass();

  // Appends `tokens` to the cache and computes logits for tokens[first_logits..]: (tokens.size() -
  // first_logits, vocab_size) floats into `logits`; first_logits == tokens.size() computes none.
  // Errors: kInvalidArgument (no tokens, an id out of range, a cache that is too small or another
  // model's), kOutOfMemory; an error leaves the cache as it was.
  Status Run(std::span<const int32_t> tokens, KvCache* cache, size_t first_logits,
             std::span<float> logits);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgewise
