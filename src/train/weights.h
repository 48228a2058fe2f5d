// WeightSource: where a network gets its weights from, as floats: a run of them that is learned, or
// a checkpoint that stays in its file's format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "model/checkpoint.h"
#include "tensor/tensor.h"
#include "train/parameters.h"

namespace edgewise::train {

// A table of vectors, (rows, dim), and the rows of it that are meant.
struct TokenRows {
  const float* table;
  std::span<const int32_t> ids;
};
// Rows of the output matrix that are in memory together.
struct OutputRows {
  const float* rows;  // (count, dim)
  size_t count;
};

// Decodes the tensors of a layer, (layer.size) floats, and lets go of their file's pages. Errors:
// those of Checkpoint::Load.
Result<std::vector<float>> LoadLayer(const Checkpoint& checkpoint, const LayerLayout& layer,
                                     ThreadPool* pool);

// Not thread-safe. What a function returns is valid until it is called again.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Errors: those of Checkpoint::Load.
  virtual Result<LayerWeights> Layer(uint32_t layer) = 0;
  // The embeddings of tokens of the vocabulary.
  virtual TokenRows Embedding(std::span<const int32_t> tokens) = 0;
  virtual const float* OutputNorm() = 0;  // (dim)
  // Rows of the output matrix from `first` on, at least one.
  virtual OutputRows Output(size_t first) = 0;
};

// Floats in the order of a layout; both stay the caller's.
class FloatWeights final : public WeightSource {
 public:
  FloatWeights(const ParameterLayout& layout, const float* values)
      : layout_(layout), values_(values) {}
  Result<LayerWeights> Layer(uint32_t layer) override { return In(values_, layout_.layer(layer)); }
  TokenRows Embedding(std::span<const int32_t> tokens) override {
    return {values_ + layout_.embedding(), tokens};
  }
  const float* OutputNorm() override { return values_ + layout_.output_norm(); }
  OutputRows Output(size_t first) override {
    return {values_ + layout_.logits() + first * layout_.dim(), layout_.vocab_size() - first};
  }

 private:
  const ParameterLayout& layout_;
  const float* values_;
};

// The weights of a checkpoint, which nothing changes, decoded when they are needed: one layer, the
// embeddings of a batch's tokens, some rows of the output matrix. It is the frozen base of QLoRA
// (Dettmers et al. 2023), in any format that a checkpoint reads.
class CheckpointWeights final : public WeightSource {
 public:
  static constexpr size_t kOutputRows = 2048;  // of the output matrix that are decoded together

  // The pool must outlive it. Errors: those of Checkpoint::Load.
  static Result<CheckpointWeights> Create(const Checkpoint& checkpoint, ThreadPool* pool);
  // Bytes that it takes for batches of `tokens`, with the mapped file's tensors.
  static uint64_t Bytes(const Checkpoint& checkpoint, size_t tokens);

  Result<LayerWeights> Layer(uint32_t layer) override;
  TokenRows Embedding(std::span<const int32_t> tokens) override;
  const float* OutputNorm() override { return output_norm_.data(); }
  OutputRows Output(size_t first) override;

 private:
  CheckpointWeights(const Checkpoint& checkpoint, ThreadPool* pool);

  Checkpoint checkpoint_;
  ThreadPool* pool_;
  std::vector<LayerLayout> layers_;
  Tensor embedding_, output_;  // output_ is empty where they are tied
  std::vector<float> output_norm_;
  uint32_t loaded_ = UINT32_MAX;  // the layer in values_
  std::vector<float> values_, token_values_, output_values_;
  std::vector<int32_t> ids_;  // 0, 1, 2, ...
};

}  // namespace edgewise::train
