#include "formats/bnb_layout.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "base/json.h"
#include "base/strings.h"
#include "formats/linear_layout.h"
#include "quant/nf4.h"

namespace edgewise {
namespace {

using U64 = unsigned long long;

constexpr uint64_t kMaxStateBytes = 1u << 16;
constexpr uint64_t kMaxBlock = 1u << 24;

struct QuantState {
  uint64_t block = 0;         // values per magnitude
  uint64_t nested_block = 0;  // magnitudes per scale
  float nested_offset = 0;
};

uint64_t BlocksOf(uint64_t count, uint64_t block) { return (count - 1) / block + 1; }

std::span<const uint8_t> AsCodes(const TensorView& view) {
  return {reinterpret_cast<const uint8_t*>(view.data), view.bytes};
}

Result<uint64_t> ReadBlock(const Json& json, const char* key) {
  const Json* value = json.Find(key);
  const auto block = value ? value->AsUint() : std::nullopt;
  if (block && *block > 0 && *block <= kMaxBlock) return *block;
  return MakeError(Code::kBadData, "\"%s\" is %s; a block size is expected", key,
                   value ? Quote(value->Dump()).c_str() : "missing");
}

// The shape in the state is that of the layer, which the packed bytes alone do not tell.
Status CheckStateShape(const Json& json, const Shape& shape) {
  const Json* value = json.Find("shape");
  const JsonArray* sizes = value ? value->AsArray() : nullptr;
  if (sizes && sizes->size() == 2 && (*sizes)[0].AsUint() == shape[0] &&
      (*sizes)[1].AsUint() == shape[1]) {
    return Ok{};
  }
  return MakeError(Code::kBadData, "\"shape\" is %s; %s is expected",
                   value ? Quote(value->Dump()).c_str() : "missing", shape.ToString().c_str());
}

Result<QuantState> ReadState(const TensorView& view, const Shape& shape, bool nested) {
  if (view.bytes > kMaxStateBytes) {
    return MakeError(Code::kBadData, "%zu bytes; at most %llu are read", view.bytes,
                     static_cast<U64>(kMaxStateBytes));
  }
  EW_TRY(const Json json,
         ParseJson(std::string_view(reinterpret_cast<const char*>(view.data), view.bytes)));
  EW_TRY(CheckStateShape(json, shape));
  QuantState state;
  EW_TRY(state.block, ReadBlock(json, "blocksize"));
  if (!nested) return state;
  EW_TRY(state.nested_block, ReadBlock(json, "nested_blocksize"));
  const Json* offset = json.Find("nested_offset");
  const auto number = offset ? offset->AsDouble() : std::nullopt;
  if (!number || std::abs(*number) > static_cast<double>(std::numeric_limits<float>::max())) {
    return MakeError(Code::kBadData, "\"nested_offset\" is %s; a number is expected",
                     offset ? Quote(offset->Dump()).c_str() : "missing");
  }
  state.nested_offset = static_cast<float>(*number);
  return state;
}

Result<std::vector<float>> ReadAbsmax(const Bnb4Parts& parts, const QuantState& state,
                                      uint64_t blocks) {
  if (!parts.nested_absmax) {
    EW_TRY(CheckPart("absmax", parts.absmax, kFloatParts, Shape{blocks}));
    return ReadFloatPart("absmax", parts.absmax);
  }
  EW_TRY(CheckPart("absmax", parts.absmax, {DType::kI8}, Shape{blocks}));
  EW_TRY(CheckPart("nested_absmax", *parts.nested_absmax, kFloatParts,
                   Shape{BlocksOf(blocks, state.nested_block)}));
  EW_TRY(CheckPart("nested_quant_map", *parts.nested_quant_map, kFloatParts, Shape{256}));
  EW_TRY(const auto scales, ReadFloatPart("nested_absmax", *parts.nested_absmax));
  EW_TRY(const auto map, ReadFloatPart("nested_quant_map", *parts.nested_quant_map));
  return quant::DecodeAbsmax(AsCodes(parts.absmax), std::span(map).first<256>(), scales,
                             state.nested_block, state.nested_offset);
}

}  // namespace

Result<Bnb4Matrix> Bnb4Matrix::Make(const Bnb4Parts& parts, const Shape& shape) {
  if (parts.nested_absmax.has_value() != parts.nested_quant_map.has_value()) {
    return MakeError(Code::kBadData, "%s is missing",
                     parts.nested_absmax ? "nested_quant_map" : "nested_absmax");
  }
  EW_TRY(const QuantState state,
         ReadState(parts.quant_state, shape, parts.nested_absmax.has_value()).In("quant_state"));
  Bnb4Matrix matrix;
  matrix.elements_ = shape.elements();
  matrix.block_ = state.block;
  matrix.weight_ = parts.weight;
  const uint64_t bytes = matrix.elements_ / 2 + matrix.elements_ % 2;
  if (parts.weight.bytes != bytes) {
    return MakeError(Code::kBadData, "weight has %zu bytes; 4-bit codes of %s take %llu",
                     parts.weight.bytes, shape.ToString().c_str(), static_cast<U64>(bytes));
  }
  EW_TRY(CheckPart("quant_map", parts.quant_map, kFloatParts, Shape{16}));
  EW_TRY(const auto map, ReadFloatPart("quant_map", parts.quant_map));
  std::copy(map.begin(), map.end(), matrix.map_.begin());
  EW_TRY(matrix.absmax_, ReadAbsmax(parts, state, BlocksOf(matrix.elements_, state.block)));
  return matrix;
}

void Bnb4Matrix::Decode(float* values) const {
  quant::DecodeNibbles(AsCodes(weight_).data(), map_, absmax_.data(), block_, elements_, values);
}

Result<Bnb8Matrix> Bnb8Matrix::Make(const Bnb8Parts& parts, const Shape& shape) {
  EW_TRY(CheckPart("weight", parts.weight, {DType::kI8}, shape));
  EW_TRY(CheckPart("SCB", parts.scb, kFloatParts, Shape{shape[0]}));
  if (parts.weight_format) {
    const auto format = AsCodes(*parts.weight_format);
    if (std::any_of(format.begin(), format.end(), [](uint8_t byte) { return byte != 0; })) {
      return MakeError(Code::kUnsupported,
                       "weight_format is not \"row\"; save the model again with bitsandbytes 0.43 "
                       "or later");
    }
  }
  Bnb8Matrix matrix;
  matrix.weight_ = parts.weight;
  EW_TRY(matrix.scales_, ReadFloatPart("SCB", parts.scb));
  return matrix;
}

void Bnb8Matrix::Decode(float* values) const {
  const uint64_t columns = weight_.shape.columns();
  for (size_t row = 0; row < scales_.size(); ++row) {
    float* out = values + row * columns;
    weight_.DecodeRow(row, out);
    for (uint64_t c = 0; c < columns; ++c) out[c] = out[c] * scales_[row] * (1.0f / 127.0f);
  }
}

Bnb4Bytes PackNf4(std::span<const float> values, const Shape& shape) {
  Bnb4Bytes bytes;
  bytes.weight.resize(values.size() / 2 + values.size() % 2);
  std::vector<float> absmax(BlocksOf(values.size(), quant::kNf4Block));
  quant::EncodeNf4(values, bytes.weight.data(), absmax.data());
  bytes.nested_quant_map = quant::DynamicMap();
  quant::NestedAbsmax nested = quant::NestAbsmax(absmax, bytes.nested_quant_map);
  bytes.nested_offset = nested.offset;
  bytes.absmax = std::move(nested.codes);
  bytes.nested_absmax = std::move(nested.scales);
  Json state;
  state.Set("quant_type", "nf4").Set("blocksize", uint64_t{quant::kNf4Block});
  state.Set("dtype", "float16").Set("shape", JsonArray{shape[0], shape[1]});
  state.Set("nested_blocksize", uint64_t{quant::kAbsmaxBlock}).Set("nested_dtype", "float32");
  state.Set("nested_offset", static_cast<double>(nested.offset));
  bytes.quant_state = state.Dump();
  EW_CHECK(bytes.quant_state.size() <= kNf4StateBytes);
  bytes.quant_state.resize(kNf4StateBytes, ' ');
  return bytes;
}

Bnb8Bytes PackInt8(std::span<const float> values, const Shape& shape) {
  const uint64_t rows = shape[0], columns = shape[1];
  Bnb8Bytes bytes{std::vector<int8_t>(values.size()), std::vector<float>(rows)};
  for (uint64_t row = 0; row < rows; ++row) {
    const std::span<const float> in = values.subspan(row * columns, columns);
    float largest = 0;
    for (const float value : in) largest = std::max(largest, std::fabs(value));
    bytes.scb[row] = largest;
    const float by = largest > 0 ? 127.0f / largest : 0.0f;
    for (uint64_t c = 0; c < columns; ++c) {
      bytes.weight[row * columns + c] = static_cast<int8_t>(std::lrintf(in[c] * by));
    }
  }
  return bytes;
}

}  // namespace edgewise
