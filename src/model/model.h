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
  friend class LayerStream;
  struct Impl;
  explicit Model(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The most tokens of one sequence that pass through the model together: the weights are read often
// enough from cache, and the scratch memory stays small.
inline constexpr uint32_t kMaxStep = 256;

// Keys and values of one sequence, layer by layer in `format`. A layer with full attention has a
// slot for each position; one with a sliding window keeps the window and kMaxStep more, in a ring.
// In Q4_0 a key is rounded with the 32 of its block, once they are all there, and only later blocks
// see it so; until it cannot be one of a block that loses others, it is kept in F16 as well.
class KvCache {
 public:
  // Errors: kInvalidArgument (capacity 0, head_dim does not fit the format), kOutOfMemory.
  static Result<KvCache> Create(const ModelSpec& spec, uint32_t capacity, kernels::KvFormat format);
  uint32_t capacity() const { return capacity_; }
  uint32_t size() const { return size_; }  // positions filled
  // Forgets all positions from `size` on (size <= size()). Returns how many are left: `size`, which
  // it always is within kMaxStep of the furthest position filled since Clear or since more than
  // that was forgotten; further back 0 where a ring has dropped keys that the next token would see,
  // and in Q4_0 whole blocks of 32.
  [[nodiscard]] uint32_t Truncate(uint32_t size);
  void Clear() { size_ = highest_ = 0; }
  uint64_t bytes() const;

 private:
  friend class ForwardPass;
  friend class LayerStream;
  // Values (slots, n_kv_heads, head_dim); keys (slots / 32, n_kv_heads) of the blocks of
  // kernels::kKeyBlock. Position p is in slot p % slots. Q4_0: the latest keys in F16, likewise.
  struct Layer {
    Tensor keys, values, recent;
    size_t slots = 0, recent_slots = 0;  // multiples of 32
  };
  // With memory for the layers [first_layer, end_layer) only.
  static Result<KvCache> Create(const ModelSpec& spec, uint32_t capacity, kernels::KvFormat format,
                                uint32_t first_layer, uint32_t end_layer);
  std::byte* KeyBlock(uint32_t layer, uint32_t position, size_t head);
  std::byte* RecentBlock(uint32_t layer, uint32_t position, size_t head);
  std::byte* Value(uint32_t layer, uint32_t position, size_t head);

  uint32_t capacity_ = 0;
  uint32_t size_ = 0;
  uint32_t highest_ = 0;  // Truncate leaves what it is told to from highest_ - rollback_ on
  uint32_t rollback_ = 0;
  bool slides_ = false;  // a layer's ring is shorter than the capacity
  kernels::KvFormat format_ = kernels::KvFormat::kF16;
  size_t n_kv_heads_ = 0;
  size_t value_bytes_ = 0;  // of one head, as the blocks of 32 keys
  size_t key_block_bytes_ = 0;
  size_t recent_block_bytes_ = 0;
  std::vector<Layer> layers_;
};

// The inputs of a layer's linear layers, in the order in which they arise.
enum class LinearInput : uint8_t { kQkv, kAttnOutput, kGateUp, kDown };
inline constexpr size_t kLinearInputs = 4;

// Sees (n, columns) inputs, rows `stride` floats apart, before the linear layers do; returns
// whether to go on.
using LinearTap = FunctionRef<bool(LinearInput input, const float* rows, size_t n, size_t stride)>;

// Tokens to append to one sequence; those from `first_logits` on give logits, none when it is
// tokens.size().
struct SequenceTokens {
  std::span<const int32_t> tokens;
  KvCache* cache;
  size_t first_logits;
};

// The parts of which another model's can stand in: the embedding's rows, a layer, or what follows
// the layers (the last norm and the output matrix, tied to the embedding or not).
struct ModelPart {
  enum class Kind : uint8_t { kEmbedding, kLayer, kOutput };
  Kind kind = Kind::kLayer;
  uint32_t layer = 0;  // kLayer only
  bool operator==(const ModelPart&) const = default;
};

// The forward pass with its scratch memory, for any number of sequences; not thread-safe.
class ForwardPass {
 public:
  // `max_batch` tokens at most, of all sequences, are computed together; longer inputs are split.
  // Model and pool must outlive it.
  ForwardPass(const Model& model, ThreadPool* pool, uint32_t max_batch = kMaxStep);
  ForwardPass(ForwardPass&&) noexcept;
  ForwardPass& operator=(ForwardPass&&) noexcept;
  ~ForwardPass();

  // From now on takes the weights of `part` from `other`, which must outlive it, and the rest from
  // its own model: a model with one part of another. Caches filled before must be cleared. Errors:
  // kInvalidArgument (the models compute differently or have other shapes, no such layer).
  Status Substitute(const Model& other, const ModelPart& part);

  // Appends the tokens of each sequence to its cache. `logits`: (tokens that give them, vocab_size)
  // floats, sequence after sequence. They are the same bits whatever else is in the batch and
  // however many threads there are. Errors: kInvalidArgument (no tokens, an id out of range, a
  // cache that is too small, another model's or in the batch twice), kOutOfMemory; an error leaves
  // all caches as they were.
  Status Run(std::span<const SequenceTokens> batch, std::span<float> logits);
  // The same for one sequence.
  Status Run(std::span<const int32_t> tokens, KvCache* cache, size_t first_logits,
             std::span<float> logits) {
    const SequenceTokens one = {tokens, cache, first_logits};
    return Run(std::span(&one, 1), logits);
  }
  // As Run, but gives the hidden states that the output matrix is multiplied with, after the last
  // norm: `states` (tokens from first_state on, dim).
  Status RunStates(std::span<const int32_t> tokens, KvCache* cache, size_t first_state,
                   std::span<float> states);

 private:
  friend class LayerStream;
  struct Impl;
  ForwardPass(const Model::Impl& model, ThreadPool* pool, uint32_t max_batch);
  // One layer alone on `n` <= kMaxStep tokens that follow those in `cache`: x (n, dim) is the
  // residual stream before it, and after it unless `tap` returned false.
  Status RunLayer(uint32_t layer, KvCache* cache, size_t n, float* x, LinearTap tap);
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgewise
