#include "train/block_scales.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/half.h"
#include "base/strings.h"
#include "quant/scale_fields.h"

namespace edgewise::train {
namespace {

constexpr size_t kPieceBlocks = 64;  // that a thread takes at once
constexpr size_t kMaxBlock = 256, kMaxBlockBytes = 256;
constexpr uint16_t kHalfOne = 0x3C00;

uint16_t HalfAt(const std::byte* block, size_t offset) {
  uint16_t half = 0;
  std::memcpy(&half, block + offset, sizeof(half));
  return half;
}
void SetHalf(std::byte* block, size_t offset, uint16_t half) {
  std::memcpy(block + offset, &half, sizeof(half));
}

}  // namespace

Result<BlockScales> BlockScales::Create(const Checkpoint& model, ThreadPool* pool) {
  BlockScales scales(pool);
  const ParameterLayout layout(model.spec());
  scales.values_.resize(layout.size());
  for (const Parameter& parameter : layout.all()) {
    const auto index = model.Find(parameter.name);
    EW_CHECK(index.has_value());  // a checkpoint has what its spec needs
    EW_TRY(const Tensor tensor, model.Load(*index));
    const TensorView& view = tensor.view();
    const std::span<const uint8_t> fields = ScaleFieldsOf(view.dtype);
    if (fields.empty()) {
      view.Decode(0, parameter.shape.elements(), scales.values_.data() + parameter.offset);
    } else {
      const DTypeInfo& info = Info(view.dtype);
      ScaledTensor scaled = {parameter, view.dtype, scales.size_, {}};
      scaled.blocks.resize(info.RowBytes(parameter.shape.elements()));
      view.CopyBlocks(0, parameter.shape.elements(), scaled.blocks.data());
      scales.size_ += scaled.block_count() * fields.size();
      scales.tensors_.push_back(std::move(scaled));
    }
    model.DropPages(*index);
  }
  if (scales.size_ > 0) return scales;
  return MakeError(Code::kInvalidArgument,
                   "no tensor is in a block format, so there are no scales to learn; quantize the "
                   "model first");
}

uint64_t BlockScales::Bytes(const Checkpoint& model) {
  uint64_t bytes = ParameterLayout(model.spec()).size() * sizeof(float);
  for (const CheckpointTensor& tensor : model.tensors()) {
    if (ScaleFieldsOf(tensor.dtype).empty()) continue;
    bytes += TensorBytes(tensor.dtype, tensor.shape, TensorLayout::kRows).value_or(0);
  }
  return bytes;
}

// Writes blocks [first, first + count) of a tensor with their halves times the factors; returns
// whether all of these are finite.
bool BlockScales::Scale(const ScaledTensor& tensor, size_t first, size_t count,
                        std::span<const float> factors, std::byte* blocks) {
  const size_t bytes = Info(tensor.format).block_bytes;
  const std::span<const uint8_t> fields = ScaleFieldsOf(tensor.format);
  std::memcpy(blocks, tensor.blocks.data() + first * bytes, count * bytes);
  bool finite = true;
  for (size_t b = 0; b < count; ++b) {
    const float* of_block = factors.data() + tensor.first + (first + b) * fields.size();
    for (size_t f = 0; f < fields.size(); ++f) {
      std::byte* block = blocks + b * bytes;
      const uint16_t half = FloatToHalf(of_block[f] * HalfToFloat(HalfAt(block, fields[f])));
      finite = finite && std::isfinite(HalfToFloat(half));
      SetHalf(block, fields[f], half);
    }
  }
  return finite;
}

Result<const float*> BlockScales::Apply(std::span<const float> factors) {
  EW_CHECK(factors.size() == size_);
  for (const ScaledTensor& tensor : tensors_) {
    const DTypeInfo& info = Info(tensor.format);
    std::atomic<bool> finite = true;
    pool_->ParallelFor(tensor.block_count(), kPieceBlocks, [&](size_t begin, size_t end, int) {
      std::vector<std::byte> blocks((end - begin) * info.block_bytes);
      if (!Scale(tensor, begin, end - begin, factors, blocks.data())) finite = false;
      info.decode(blocks.data(), values_.data() + tensor.parameter.offset + begin * info.block,
                  (end - begin) * info.block);
    });
    if (finite) continue;
    return MakeError(Code::kBadData,
                     "tensor %s: a scale is not finite or too large for a half; try a lower "
                     "learning rate",
                     tensor.parameter.name.c_str());
  }
  return values_.data();
}

std::vector<std::byte> BlockScales::Scaled(const ScaledTensor& tensor,
                                           std::span<const float> factors) {
  std::vector<std::byte> blocks(tensor.blocks.size());
  Scale(tensor, 0, tensor.block_count(), factors, blocks.data());
  return blocks;
}

// A value's share of a half is what it is where that half is 1 and the other 0.
void BlockScales::Reduce(const float* parameter_gradients, float* gradients) const {
  for (const ScaledTensor& tensor : tensors_) {
    const DTypeInfo& info = Info(tensor.format);
    const std::span<const uint8_t> fields = ScaleFieldsOf(tensor.format);
    pool_->ParallelFor(tensor.block_count(), kPieceBlocks, [&](size_t begin, size_t end, int) {
      std::byte block[kMaxBlockBytes];
      float shares[kMaxBlock];
      for (size_t b = begin; b < end; ++b) {
        const std::byte* stored = tensor.blocks.data() + b * info.block_bytes;
        const float* g = parameter_gradients + tensor.parameter.offset + b * info.block;
        for (size_t f = 0; f < fields.size(); ++f) {
          std::memcpy(block, stored, info.block_bytes);
          for (const uint8_t field : fields)
            SetHalf(block, field, field == fields[f] ? kHalfOne : 0);
          info.decode(block, shares, info.block);
          double sum = 0;
          for (size_t i = 0; i < info.block; ++i) {
            sum += static_cast<double>(g[i]) * static_cast<double>(shares[i]);
          }
          const auto half = static_cast<double>(HalfToFloat(HalfAt(stored, fields[f])));
          gradients[tensor.first + b * fields.size() + f] = static_cast<float>(half * sum);
        }
      }
    });
  }
}

}  // namespace edgewise::train
