#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/round_up.h"
#include "base/strings.h"
#include "model/model.h"

namespace edgewise {
namespace {

DType StoredType(kernels::KvFormat format) {
  switch (format) {
    case kernels::KvFormat::kF32:
      return DType::kF32;
    case kernels::KvFormat::kF16:
      return DType::kF16;
    case kernels::KvFormat::kQ8_0:
      return DType::kQ8_0;
    case kernels::KvFormat::kQ4_0:
      return DType::kQ4_1;
  }
  return DType::kF16;
}

// Takes memory for `side` of a cache of `capacity` positions.
Status Allocate(Tensor* side, DType type, const Shape& shape, uint32_t capacity) {
  auto tensor = Tensor::Allocate(type, shape);
  if (!tensor) {
    return MakeError(Code::kOutOfMemory, "no memory for a KV cache of %u positions: %s", capacity,
                     tensor.error().message.c_str());
  }
  *side = *std::move(tensor);
  return Ok{};
}

}  // namespace

Result<KvCache> KvCache::Create(const ModelSpec& spec, uint32_t capacity,
                                kernels::KvFormat format) {
  return Create(spec, capacity, format, 0, spec.n_layers);
}

Result<KvCache> KvCache::Create(const ModelSpec& spec, uint32_t capacity, kernels::KvFormat format,
                                uint32_t first_layer, uint32_t end_layer) {
  if (capacity == 0) {
    return MakeError(Code::kInvalidArgument, "a KV cache of 0 positions holds nothing");
  }
  KvCache cache;
  cache.capacity_ = capacity;
  cache.rollback_ = capacity;
  cache.format_ = format;
  cache.n_kv_heads_ = spec.n_kv_heads;
  cache.value_bytes_ = kernels::KvRowBytes(format, spec.head_dim);
  cache.key_block_bytes_ = kernels::KeyBlockBytes(format, spec.head_dim);
  cache.recent_block_bytes_ = kernels::KeyBlockBytes(kernels::KvFormat::kF16, spec.head_dim);
  if (cache.value_bytes_ == 0) {
    return MakeError(Code::kInvalidArgument,
                     "a %s KV cache needs a head size that is a multiple of 32, and this model's "
                     "is %u; use F16",
                     format == kernels::KvFormat::kQ8_0 ? "Q8_0" : "Q4_0", spec.head_dim);
  }
  cache.layers_.resize(spec.n_layers);
  for (uint32_t index = first_layer; index < end_layer; ++index) {
    Layer& layer = cache.layers_[index];
    layer.slots = RoundUp(capacity, kernels::kKeyBlock);
    // The tokens of one step are stored before the first of them looks at its window.
    const uint64_t ring = RoundUp(uint64_t{spec.sliding_window} + kMaxStep, kernels::kKeyBlock);
    if (spec.LayerSlides(index) && ring < layer.slots) {
      layer.slots = ring;
      cache.slides_ = true;
      cache.rollback_ = kMaxStep;
    }
    EW_TRY(Allocate(&layer.keys, StoredType(format), {layer.slots, spec.kv_dim()}, capacity));
    EW_TRY(Allocate(&layer.values, StoredType(format), {layer.slots, spec.kv_dim()}, capacity));
    if (format != kernels::KvFormat::kQ4_0) continue;
    // The blocks of a step's tokens, the first and the last of which may be parts.
    layer.recent_slots = std::min(layer.slots, size_t{kMaxStep} + kernels::kKeyBlock);
    if (layer.recent_slots < layer.slots) cache.rollback_ = kMaxStep;
    EW_TRY(Allocate(&layer.recent, DType::kF16, {layer.recent_slots, spec.kv_dim()}, capacity));
  }
  return cache;
}

uint32_t KvCache::Truncate(uint32_t size) {
  EW_CHECK(size <= size_);
  if (highest_ - size > rollback_) {
    size = slides_ ? 0 : size - static_cast<uint32_t>(size % kernels::kKeyBlock);
    highest_ = size + rollback_;
  }
  return size_ = size;
}

std::byte* KvCache::KeyBlock(uint32_t layer, uint32_t position, size_t head) {
  const size_t block = position % layers_[layer].slots / kernels::kKeyBlock;
  return layers_[layer].keys.mutable_data() + (block * n_kv_heads_ + head) * key_block_bytes_;
}

std::byte* KvCache::RecentBlock(uint32_t layer, uint32_t position, size_t head) {
  const size_t block = position % layers_[layer].recent_slots / kernels::kKeyBlock;
  return layers_[layer].recent.mutable_data() + (block * n_kv_heads_ + head) * recent_block_bytes_;
}

std::byte* KvCache::Value(uint32_t layer, uint32_t position, size_t head) {
  const size_t slot = position % layers_[layer].slots;
  return layers_[layer].values.mutable_data() + (slot * n_kv_heads_ + head) * value_bytes_;
}

uint64_t KvCache::bytes() const {
  uint64_t bytes = 0;
  for (const Layer& layer : layers_) {
    for (const Tensor* side : {&layer.keys, &layer.values, &layer.recent}) {
      bytes += side->view().bytes;
    }
  }
  return bytes;
}

}  // namespace edgewise
