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
      return DType::kQ4_0;
  }
  return DType::kF16;
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
  cache.row_bytes_ = kernels::KvRowBytes(format, spec.head_dim);
  if (cache.row_bytes_ == 0) {
    return MakeError(Code::kInvalidArgument,
                     "a %s KV cache needs a head size that is a multiple of 32, and this model's "
                     "is %u; use F16",
                     Info(StoredType(format)).name, spec.head_dim);
  }
  cache.position_bytes_ = cache.row_bytes_ * spec.n_kv_heads;
  cache.layers_.resize(spec.n_layers);
  for (uint32_t index = first_layer; index < end_layer; ++index) {
    Layer& layer = cache.layers_[index];
    layer.slots = RoundUp(capacity, kernels::kKeyBlock);
    // The tokens of one step are stored before the first of them looks at its window.
    const uint64_t ring = RoundUp(uint64_t{spec.sliding_window} + kMaxStep, kernels::kKeyBlock);
    if (spec.LayerSlides(index) && ring < layer.slots) {
      layer.slots = ring;
      cache.rollback_ = kMaxStep;
    }
    for (Tensor* side : {&layer.keys, &layer.values}) {
      auto tensor = Tensor::Allocate(StoredType(format), Shape{layer.slots, spec.kv_dim()});
      if (!tensor) {
        return MakeError(Code::kOutOfMemory, "no memory for a KV cache of %u positions: %s",
                         capacity, tensor.error().message.c_str());
      }
      *side = *std::move(tensor);
    }
  }
  return cache;
}

uint32_t KvCache::Truncate(uint32_t size) {
  EW_CHECK(size <= size_);
  if (highest_ - size > rollback_) size = 0;
  size_ = size;
  if (size == 0) highest_ = 0;
  return size;
}

std::byte* KvCache::KeyBlock(uint32_t layer, uint32_t position, size_t head) {
  const size_t block = position % layers_[layer].slots / kernels::kKeyBlock;
  return layers_[layer].keys.mutable_data() +
         kernels::kKeyBlock * (block * position_bytes_ + head * row_bytes_);
}

std::byte* KvCache::Value(uint32_t layer, uint32_t position, size_t head) {
  const size_t slot = position % layers_[layer].slots;
  return layers_[layer].values.mutable_data() + slot * position_bytes_ + head * row_bytes_;
}

uint64_t KvCache::bytes() const {
  uint64_t bytes = 0;
  for (const Layer& layer : layers_) bytes += layer.keys.view().bytes + layer.values.view().bytes;
  return bytes;
}

}  // namespace edgewise
