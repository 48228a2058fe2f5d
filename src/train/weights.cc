#include "train/weights.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace edgewise::train {
namespace {

constexpr size_t kDecodeRows = 16;  // that a thread decodes at once

size_t IndexOf(const Checkpoint& checkpoint, const std::string& name) {
  const auto index = checkpoint.Find(name);
  EW_CHECK(index.has_value());  // a checkpoint has what its spec needs
  return *index;
}

// Decodes rows [first, first + count) on all threads.
void DecodeRows(const TensorView& view, size_t first, size_t count, ThreadPool* pool,
                float* values) {
  const size_t columns = view.shape.columns();
  pool->ParallelFor(count, kDecodeRows, [&](size_t begin, size_t end, int) {
    view.Decode((first + begin) * columns, (end - begin) * columns, values + begin * columns);
  });
}

std::vector<LayerLayout> LayersOf(const ModelSpec& spec) {
  const ParameterLayout layout(spec);
  std::vector<LayerLayout> layers;
  for (uint32_t l = 0; l < spec.n_layers; ++l) layers.emplace_back(layout, l);
  return layers;
}

Status DecodeLayer(const Checkpoint& checkpoint, const LayerLayout& layer, ThreadPool* pool,
                   float* values) {
  for (const Parameter& parameter : layer.parameters) {
    EW_TRY(const Tensor tensor, checkpoint.Load(IndexOf(checkpoint, parameter.name)));
    DecodeRows(tensor.view(), 0, tensor.view().shape.rows(), pool, values + parameter.offset);
  }
  return Ok{};
}

}  // namespace

Result<std::vector<float>> LoadLayer(const Checkpoint& checkpoint, const LayerLayout& layer,
                                     ThreadPool* pool) {
  std::vector<float> values(layer.size);
  EW_TRY(DecodeLayer(checkpoint, layer, pool, values.data()));
  for (const Parameter& parameter : layer.parameters) {
    checkpoint.DropPages(IndexOf(checkpoint, parameter.name));
  }
  return values;
}

CheckpointWeights::CheckpointWeights(const Checkpoint& checkpoint, ThreadPool* pool)
    : checkpoint_(checkpoint), pool_(pool), layers_(LayersOf(checkpoint.spec())) {}

Result<CheckpointWeights> CheckpointWeights::Create(const Checkpoint& checkpoint,
                                                    ThreadPool* pool) {
  CheckpointWeights weights(checkpoint, pool);
  const ModelSpec& spec = checkpoint.spec();
  EW_TRY(weights.embedding_, checkpoint.Load(IndexOf(checkpoint, "token_embd.weight")));
  if (!spec.tied_embeddings) {
    EW_TRY(weights.output_, checkpoint.Load(IndexOf(checkpoint, "output.weight")));
  }
  EW_TRY(const Tensor norm, checkpoint.Load(IndexOf(checkpoint, "output_norm.weight")));
  weights.output_norm_.resize(spec.dim);
  norm.view().DecodeRow(0, weights.output_norm_.data());
  weights.output_values_.resize(std::min<size_t>(kOutputRows, spec.vocab_size) * spec.dim);
  return weights;
}

uint64_t CheckpointWeights::Bytes(const Checkpoint& checkpoint, size_t tokens) {
  const ModelSpec& spec = checkpoint.spec();
  size_t largest = 0;
  for (const LayerLayout& layer : LayersOf(spec)) largest = std::max(largest, layer.size);
  const uint64_t floats =
      largest + spec.dim * (tokens + std::min<uint64_t>(kOutputRows, spec.vocab_size));
  uint64_t bytes = floats * sizeof(float);
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    const auto stored = TensorBytes(tensor.dtype, tensor.shape, tensor.layout);
    EW_CHECK(stored.has_value());  // a checkpoint's tensors have been laid out
    bytes += tensor.stored_as.empty() ? *stored : tensor.stored_bytes;
  }
  return bytes;
}

Result<LayerWeights> CheckpointWeights::Layer(uint32_t layer) {
  const LayerLayout& layout = layers_[layer];
  if (layer != loaded_) {
    loaded_ = UINT32_MAX;
    values_.resize(std::max(values_.size(), layout.size));
    EW_TRY(DecodeLayer(checkpoint_, layout, pool_, values_.data()));
    loaded_ = layer;
  }
  return In<const float>(values_.data(), layout.offsets);
}

TokenRows CheckpointWeights::Embedding(std::span<const int32_t> tokens) {
  const TensorView& view = embedding_.view();
  const size_t dim = view.shape.columns();
  token_values_.resize(std::max(token_values_.size(), tokens.size() * dim));
  pool_->ParallelFor(tokens.size(), kDecodeRows, [&](size_t begin, size_t end, int) {
    for (size_t i = begin; i < end; ++i) {
      view.DecodeRow(static_cast<uint64_t>(tokens[i]), token_values_.data() + i * dim);
    }
  });
  ids_.resize(tokens.size());
  std::iota(ids_.begin(), ids_.end(), 0);
  return {token_values_.data(), ids_};
}

OutputRows CheckpointWeights::Output(size_t first) {
  const TensorView& view = (output_.view().data ? output_ : embedding_).view();
  const size_t count = std::min<size_t>(kOutputRows, view.shape.rows() - first);
  DecodeRows(view, first, count, pool_, output_values_.data());
  return {output_values_.data(), count};
}

}  // namespace edgewise::train
