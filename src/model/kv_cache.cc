#include <utility>

#include "base/bytes.h"
#include "base/check.h"
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
  }
  return DType::kF16;
}

}  // namespace

Result<KvCache> KvCache::Create(const ModelSpec& spec, uint32_t capacity,
                                kernels::KvFormat format) {
  if (capacity == 0) {
    return MakeError(Code::kInvalidArgument, "a KV cache of 0 positions holds nothing");
  }
  KvCache cache;
  cache.capacity_ = capacity;
  cache.format_ = format;
  cache.row_bytes_ = kernels::KvRowBytes(format, spec.head_dim);
  if (cache.row_bytes_ == 0) {
    return MakeError(Code::kInvalidArgument,
                     "a Q8_0 KV cache needs a head size that is a multiple of 32, and this "
                     "model's is %u; use F16",
                     spec.head_dim);
  }
  cache.position_bytes_ = cache.row_bytes_ * spec.n_kv_heads;
  const uint64_t key_rows =
      (uint64_t{capacity} + kernels::kKeyBlock - 1) / kernels::kKeyBlock * kernels::kKeyBlock;
  for (uint32_t layer = 0; layer < spec.n_layers; ++layer) {
    for (std::vector<Tensor>* side : {&cache.keys_, &cache.values_}) {
      const uint64_t positions = side == &cache.keys_ ? key_rows : capacity;
      auto tensor = Tensor::Allocate(StoredType(format), Shape{positions, spec.kv_dim()});
      if (!tensor) {
        return MakeError(Code::kOutOfMemory, "no memory for a KV cache of %u positions: %s",
                         capacity, tensor.error().message.c_str());
      }
      side->push_back(*std::move(tensor));
    }
  }
  return cache;
}

void KvCache::Truncate(uint32_t size) {
  EW_CHECK(size <= size_);
  size_ = size;
}

uint64_t KvCache::bytes() const {
  uint64_t bytes = 0;
  for (const Tensor& keys : keys_) bytes += keys.view().bytes;
  for (const Tensor& values : values_) bytes += values.view().bytes;
  return bytes;
}

}  // namespace edgewise
