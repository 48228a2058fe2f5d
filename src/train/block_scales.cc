#include "train/block_scales.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/half.h"
#include "base/strings.h"
#include "quant/block_parts.h"
#include "quant/group_levels.h"
#include "quant/scale_fields.h"

namespace edgewise::train {
namespace {

constexpr size_t kPieceBlocks = 64;  // that a thread takes at once
constexpr size_t kMaxBlock = 256, kMaxBlockBytes = 256, kMaxFields = 2;
constexpr uint16_t kHalfOne = 0x3C00;

uint16_t HalfAt(const std::byte* block, size_t offset) {
  uint16_t half = 0;
  std::memcpy(&half, block + offset, sizeof(half));
  return half;
}
void SetHalf(std::byte* block, size_t offset, uint16_t half) {
  std::memcpy(block + offset, &half, sizeof(half));
}

// Writes into a block whose scales are set the codes nearest to these values; returns whether all
// of them are finite.
bool SetCodes(DType format, const float* values, std::byte* block) {
  const DTypeInfo& info = Info(format);
  if (!std::all_of(values, values + info.block, [](float x) { return std::isfinite(x); })) {
    return false;
  }
  const BlockForm& form = *FormOf(format);
  BlockParts parts;
  form.unpack(block, &parts);
  for (size_t j = 0; j < info.block; ++j) {
    const bool set = MayBeSet(info, parts, j);
    parts.value[j] = set ? Nearest(form, LevelsOf(parts, j / form.group), values[j]) : int8_t{0};
  }
  form.pack(parts, block);
  return true;
}

// The root mean square of weights; 1 where all are 0.
float SizeOf(std::span<const float> weights) {
  const double sum = std::inner_product(
      weights.begin(), weights.end(), weights.begin(), 0.0, std::plus<>(),
      [](float a, float b) { return static_cast<double>(a) * static_cast<double>(b); });
  return sum > 0 ? static_cast<float>(std::sqrt(sum / static_cast<double>(weights.size()))) : 1.0f;
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
    const size_t count = parameter.shape.elements();
    if (ScaleFieldsOf(view.dtype).empty()) {
      view.Decode(0, count, scales.values_.data() + parameter.offset);
    } else {
      std::vector<std::byte> blocks(Info(view.dtype).RowBytes(count));
      view.CopyBlocks(0, count, blocks.data());
      scales.Add(parameter, view.dtype, 1, std::move(blocks));
    }
    model.DropPages(*index);
  }
  if (scales.factors_ > 0) return scales;
  return MakeError(Code::kInvalidArgument,
                   "no tensor is in a block format, so there are no scales to learn; quantize the "
                   "model first");
}

Result<BlockScales> BlockScales::CreateWithWeights(std::span<const Parameter> parameters,
                                                   std::span<const DType> formats,
                                                   std::span<const float> weights,
                                                   ThreadPool* pool) {
  EW_CHECK(formats.size() == parameters.size());
  BlockScales scales(pool);
  scales.weights_ = weights.size();
  scales.values_.resize(weights.size());
  std::vector<Parameter> others;
  std::vector<DType> other_formats;
  for (size_t i = 0; i < formats.size(); ++i) {
    const Parameter& parameter = parameters[i];
    const DTypeInfo& info = Info(formats[i]);
    if (ScaleFieldsOf(formats[i]).empty()) {
      others.push_back(parameter);
      other_formats.push_back(formats[i]);
      continue;
    }
    const size_t count = parameter.shape.elements();
    std::vector<std::byte> blocks(info.RowBytes(count));
    pool->ParallelFor(count / info.block, kPieceBlocks, [&](size_t begin, size_t end, int) {
      info.encode(weights.data() + parameter.offset + begin * info.block, nullptr,
                  blocks.data() + begin * info.block_bytes, (end - begin) * info.block);
    });
    scales.Add(parameter, formats[i], SizeOf(weights.subspan(parameter.offset, count)),
               std::move(blocks));
  }
  if (!others.empty()) scales.rounding_.emplace(others, other_formats, pool);
  if (scales.factors_ > 0) return scales;
  return MakeError(Code::kInvalidArgument,
                   "none of the formats has blocks, so there are no scales to learn");
}

void BlockScales::Add(const Parameter& parameter, DType format, float unit,
                      std::vector<std::byte> blocks) {
  const size_t halves = ScaleFieldsOf(format).size();
  EW_CHECK(halves <= kMaxFields && Info(format).block <= kMaxBlock &&
           Info(format).block_bytes <= kMaxBlockBytes && FormOf(format) != nullptr);
  tensors_.push_back({parameter, format, factors_, unit, std::move(blocks)});
  factors_ += FactorsOf(format, parameter.shape.elements());
}

size_t BlockScales::FactorsOf(DType format, size_t values) {
  return values / Info(format).block * ScaleFieldsOf(format).size();
}

void BlockScales::AppendFactors(std::vector<float>* learned) const {
  for (const ScaledTensor& tensor : tensors_) {
    const size_t count = FactorsOf(tensor.format, tensor.parameter.shape.elements());
    learned->insert(learned->end(), count, tensor.unit);
  }
}

uint64_t BlockScales::Bytes() const {
  uint64_t bytes = values_.size() * sizeof(float);
  for (const ScaledTensor& tensor : tensors_) bytes += tensor.blocks.size();
  return bytes;
}

size_t BlockScales::FactorsAt(const ScaledTensor& tensor, size_t number) const {
  return weights_ + tensor.first + number * ScaleFieldsOf(tensor.format).size();
}

// Writes block `number` of a tensor with its halves times the factors; returns whether these are
// finite.
bool BlockScales::SetHalves(const ScaledTensor& tensor, size_t number,
                            std::span<const float> learned, std::byte* block) const {
  const size_t bytes = Info(tensor.format).block_bytes;
  std::memcpy(block, tensor.blocks.data() + number * bytes, bytes);
  const float* factor = learned.data() + FactorsAt(tensor, number);
  bool finite = true;
  for (const uint8_t field : ScaleFieldsOf(tensor.format)) {
    const float scale = *factor++ / tensor.unit;
    const uint16_t half = FloatToHalf(scale * HalfToFloat(HalfAt(block, field)));
    finite = finite && std::isfinite(HalfToFloat(half));
    SetHalf(block, field, half);
  }
  return finite;
}

// Writes blocks [first, first + count) of a tensor; returns whether all halves and weights are
// finite.
bool BlockScales::WriteBlocks(const ScaledTensor& tensor, size_t first, size_t count,
                              std::span<const float> learned, std::byte* blocks) const {
  const DTypeInfo& info = Info(tensor.format);
  for (size_t b = 0; b < count; ++b) {
    std::byte* block = blocks + b * info.block_bytes;
    if (!SetHalves(tensor, first + b, learned, block)) return false;
    const float* values = learned.data() + tensor.parameter.offset + (first + b) * info.block;
    if (weights_ > 0 && !SetCodes(tensor.format, values, block)) return false;
  }
  return true;
}

Result<const float*> BlockScales::Apply(std::span<const float> learned) {
  EW_CHECK(learned.size() >= this->learned());
  if (rounding_) EW_TRY(rounding_->ApplyTo(learned.data(), values_.data()));
  for (const ScaledTensor& tensor : tensors_) {
    const DTypeInfo& info = Info(tensor.format);
    std::atomic<bool> finite = true;
    pool_->ParallelFor(tensor.block_count(), kPieceBlocks, [&](size_t begin, size_t end, int) {
      std::vector<std::byte> blocks((end - begin) * info.block_bytes);
      if (!WriteBlocks(tensor, begin, end - begin, learned, blocks.data())) finite = false;
      info.decode(blocks.data(), values_.data() + tensor.parameter.offset + begin * info.block,
                  (end - begin) * info.block);
    });
    if (finite) continue;
    return MakeError(Code::kBadData,
                     "tensor %s: a %s is not finite, or a scale too large for a half; try a lower "
                     "learning rate",
                     tensor.parameter.name.c_str(), weights_ > 0 ? "scale or weight" : "scale");
  }
  return values_.data();
}

std::vector<std::byte> BlockScales::Blocks(const ScaledTensor& tensor,
                                           std::span<const float> learned) const {
  std::vector<std::byte> blocks(tensor.blocks.size());
  WriteBlocks(tensor, 0, tensor.block_count(), learned, blocks.data());
  return blocks;
}

// A value's share of a half is what it is where that half is 1 and the other 0.
void BlockScales::ReduceFixed(const ScaledTensor& tensor, size_t number, const float* g,
                              float* gradients) const {
  const DTypeInfo& info = Info(tensor.format);
  const std::span<const uint8_t> fields = ScaleFieldsOf(tensor.format);
  const std::byte* stored = tensor.blocks.data() + number * info.block_bytes;
  std::byte block[kMaxBlockBytes];
  float shares[kMaxBlock];
  for (size_t f = 0; f < fields.size(); ++f) {
    std::memcpy(block, stored, info.block_bytes);
    for (const uint8_t field : fields) SetHalf(block, field, field == fields[f] ? kHalfOne : 0);
    info.decode(block, shares, info.block);
    double sum = 0;
    for (size_t i = 0; i < info.block; ++i) {
      sum += static_cast<double>(g[i]) * static_cast<double>(shares[i]);
    }
    gradients[f] =
        static_cast<float>(static_cast<double>(HalfToFloat(HalfAt(stored, fields[f]))) * sum);
  }
}

// The gradients of the block's weights are those of what is seen, before.
void BlockScales::ReduceWithWeights(const ScaledTensor& tensor, size_t number,
                                    std::span<const float> learned, float* of_weights,
                                    float* of_factors) const {
  const DTypeInfo& info = Info(tensor.format);
  const BlockForm& form = *FormOf(tensor.format);
  const float* weights = learned.data() + tensor.parameter.offset + number * info.block;
  // Without factors, and with the halves that they give.
  BlockParts plain, scaled;
  form.unpack(tensor.blocks.data() + number * info.block_bytes, &plain);
  std::byte block[kMaxBlockBytes];
  SetHalves(tensor, number, learned, block);
  form.unpack(block, &scaled);
  double sums[kMaxFields] = {};
  for (size_t j = 0; j < info.block; ++j) {
    const size_t group = j / form.group;
    const GroupLevels levels = LevelsOf(scaled, group), unit = LevelsOf(plain, group);
    const auto gradient = static_cast<double>(of_weights[j]);
    const bool set = MayBeSet(info, scaled, j);
    const float exact = set && levels.scale != 0 ? levels.Exact(weights[j]) : 0;
    const float code = Nearest(form, levels, weights[j]);
    if (set && levels.scale != 0 && exact >= form.low && exact <= form.high) {
      sums[0] += gradient * static_cast<double>(unit.scale * (code - exact));
      continue;
    }
    of_weights[j] = 0;
    if (!set) continue;
    sums[0] += gradient * static_cast<double>(unit.scale * code);
    sums[1] -= gradient * static_cast<double>(unit.offset);
  }
  const size_t count = ScaleFieldsOf(tensor.format).size();
  for (size_t f = 0; f < count; ++f) {
    of_factors[f] = static_cast<float>(sums[f] / static_cast<double>(tensor.unit));
  }
}

void BlockScales::Reduce(std::span<const float> learned, const float* parameter_gradients,
                         float* gradients) const {
  if (weights_ > 0) std::memmove(gradients, parameter_gradients, weights_ * sizeof(float));
  for (const ScaledTensor& tensor : tensors_) {
    const size_t block = Info(tensor.format).block;
    pool_->ParallelFor(tensor.block_count(), kPieceBlocks, [&](size_t begin, size_t end, int) {
      for (size_t b = begin; b < end; ++b) {
        const size_t at = tensor.parameter.offset + b * block;
        float* of_factors = gradients + FactorsAt(tensor, b);
        if (weights_ == 0) {
          ReduceFixed(tensor, b, parameter_gradients + at, of_factors);
        } else {
          ReduceWithWeights(tensor, b, learned, gradients + at, of_factors);
        }
      }
    });
  }
}

}  // namespace edgewise::train
