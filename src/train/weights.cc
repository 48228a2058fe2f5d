#include "train/weights.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/strings.h"

namespace edgewise::train {
namespace {

constexpr size_t kOutputRows = 2048;  // that are decoded together
constexpr size_t kDecodeRows = 16;    // that a thread decodes at once

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

}  // namespace

// A layer's matrices are one run of the layout and its vectors another: here one follows the other.
std::vector<CheckpointWeights::LayerPlan> CheckpointWeights::Plan(const Checkpoint& checkpoint) {
  const ParameterLayout layout(checkpoint.spec());
  std::vector<LayerPlan> plans(checkpoint.spec().n_layers);
  for (uint32_t l = 0; l < plans.size(); ++l) {
    LayerPlan& plan = plans[l];
    const std::string prefix = Format("blk.%u.", l);
    size_t matrices = kNoParameter, vectors = kNoParameter;  // where they begin in the layout
    size_t vectors_at = 0;                                   // and here
    for (const Parameter& parameter : layout.all()) {
      if (!parameter.name.starts_with(prefix)) continue;
      if (matrices == kNoParameter) matrices = parameter.offset;
      if (vectors == kNoParameter && parameter.offset >= layout.matrix_size()) {
        vectors = parameter.offset;
        vectors_at = plan.size;
      }
      plan.tensors.push_back(IndexOf(checkpoint, parameter.name));
      plan.places.push_back(plan.size);
      plan.size += parameter.shape.elements();
    }
    plan.offsets = Each(layout.layer(l), [&](size_t offset) {
      if (offset == kNoParameter) return offset;
      return offset < layout.matrix_size() ? offset - matrices : offset - vectors + vectors_at;
    });
  }
  return plans;
}

CheckpointWeights::CheckpointWeights(const Checkpoint& checkpoint, ThreadPool* pool)
    : checkpoint_(checkpoint), pool_(pool), plans_(Plan(checkpoint)) {}

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
  size_t largest = 0;
  for (const LayerPlan& plan : weights.plans_) largest = std::max(largest, plan.size);
  weights.values_.resize(largest);
  weights.output_values_.resize(std::min<size_t>(kOutputRows, spec.vocab_size) * spec.dim);
  return weights;
}

uint64_t CheckpointWeights::Bytes(const Checkpoint& checkpoint, size_t tokens) {
  const ModelSpec& spec = checkpoint.spec();
  size_t largest = 0;
  for (const LayerPlan& plan : Plan(checkpoint)) largest = std::max(largest, plan.size);
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
  const LayerPlan& plan = plans_[layer];
  if (layer != loaded_) {
    loaded_ = UINT32_MAX;
    for (size_t i = 0; i < plan.tensors.size(); ++i) {
      EW_TRY(const Tensor tensor, checkpoint_.Load(plan.tensors[i]));
      const TensorView& view = tensor.view();
      DecodeRows(view, 0, view.shape.rows(), pool_, values_.data() + plan.places[i]);
    }
    loaded_ = layer;
  }
  return In<const float>(values_.data(), plan.offsets);
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
