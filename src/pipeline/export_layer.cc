#include "pipeline/export_layer.h"

#include "base/half.h"
#include "formats/awq_layout.h"
#include "formats/bnb_layout.h"
#include "formats/gptq_layout.h"
#include "quant/group_fit.h"
#include "quant/nf4.h"

namespace edgewise {
namespace {

// Rows that a thread fits at a time.
constexpr size_t kRowGrain = 16;

uint64_t GroupSize(const LayerFormat& format, const Shape& shape) {
  return format.group_size == 0 ? shape[1] : format.group_size;
}

quant::GroupGrid GridOf(const LayerFormat& format) {
  if (format.target == ExportTarget::kAwq) return {4, false, 0};
  // Zeros of GPTQ are stored less 1, so 0 has no place of its own.
  return {format.bits, format.symmetric, 1};
}

template <class T>
std::vector<std::byte> BytesOf(const T& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

struct Groups {
  std::vector<uint16_t> scales;  // (rows, groups), halves
  std::vector<uint8_t> zeros;    // (rows, groups)
  std::vector<uint8_t> codes;    // (rows, columns)
};

Groups FitRows(const LayerFormat& format, const Shape& shape, std::span<const float> values,
               const float* weights, ThreadPool* pool) {
  const uint64_t rows = shape[0], columns = shape[1], group = GroupSize(format, shape);
  const uint64_t per_row = columns / group;
  Groups groups;
  groups.scales.resize(rows * per_row);
  groups.zeros.resize(rows * per_row);
  groups.codes.resize(rows * columns);
  pool->ParallelFor(rows, kRowGrain, [&](size_t begin, size_t end, int) {
    quant::FitGroups(values.subspan(begin * columns, (end - begin) * columns), columns, group,
                     weights, GridOf(format), groups.scales.data() + begin * per_row,
                     groups.zeros.data() + begin * per_row, groups.codes.data() + begin * columns);
  });
  return groups;
}

double SquaredError(std::span<const float> values, const Groups& groups, uint64_t group) {
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t g = i / group;
    const float level = static_cast<float>(static_cast<int>(groups.codes[i]) - groups.zeros[g]);
    const double error =
        static_cast<double>(HalfToFloat(groups.scales[g]) * level) - static_cast<double>(values[i]);
    sum += error * error;
  }
  return sum;
}

EncodedLayer EncodeNf4Layer(const Shape& shape, std::span<const float> values) {
  const Bnb4Bytes bytes = PackNf4(values, shape);
  EncodedLayer layer;
  layer.parts = {BytesOf(bytes.weight),        BytesOf(bytes.absmax),
                 BytesOf(bytes.nested_absmax), BytesOf(bytes.nested_quant_map),
                 BytesOf(quant::kNf4Values),   BytesOf(bytes.quant_state)};
  const std::vector<float> absmax =
      quant::DecodeAbsmax(bytes.absmax, bytes.nested_quant_map, bytes.nested_absmax,
                          quant::kAbsmaxBlock, bytes.nested_offset);
  std::vector<float> decoded(values.size());
  quant::DecodeNibbles(bytes.weight.data(), quant::kNf4Values, absmax.data(), quant::kNf4Block,
                       values.size(), decoded.data());
  for (size_t i = 0; i < values.size(); ++i) {
    const double error = static_cast<double>(decoded[i]) - static_cast<double>(values[i]);
    layer.squared_error += error * error;
  }
  return layer;
}

EncodedLayer EncodeInt8Layer(const Shape& shape, std::span<const float> values) {
  const Bnb8Bytes bytes = PackInt8(values, shape);
  EncodedLayer layer;
  layer.parts = {BytesOf(bytes.weight), BytesOf(bytes.scb), std::vector<std::byte>(1)};
  for (size_t i = 0; i < values.size(); ++i) {
    const float step = bytes.scb[i / shape[1]] * (1.0f / 127.0f);
    const double error = static_cast<double>(static_cast<float>(bytes.weight[i]) * step) -
                         static_cast<double>(values[i]);
    layer.squared_error += error * error;
  }
  return layer;
}

std::vector<SafetensorsDecl> Nf4Parts(const std::string& stem, const Shape& shape) {
  const uint64_t count = shape.elements();
  const uint64_t blocks = (count + quant::kNf4Block - 1) / quant::kNf4Block;
  const std::string weight = stem + ".weight";
  return {{weight, "U8", {(count + 1) / 2, 1}},
          {weight + ".absmax", "U8", {blocks}},
          {weight + ".nested_absmax",
           "F32",
           {(blocks + quant::kAbsmaxBlock - 1) / quant::kAbsmaxBlock}},
          {weight + ".nested_quant_map", "F32", {256}},
          {weight + ".quant_map", "F32", {16}},
          {weight + ".quant_state.bitsandbytes__nf4", "U8", {kNf4StateBytes}}};
}

}  // namespace

Status CheckLayer(const LayerFormat& format, const Shape& shape) {
  switch (format.target) {
    case ExportTarget::kGptq:
      return CheckGptqShape(format.bits, GroupSize(format, shape), shape);
    case ExportTarget::kAwq:
      return CheckAwqShape(GroupSize(format, shape), shape);
    case ExportTarget::kBnbNf4:
    case ExportTarget::kBnbInt8:
      return Ok{};
  }
  return Ok{};
}

std::vector<SafetensorsDecl> LayerParts(const LayerFormat& format, const std::string& stem,
                                        const Shape& shape) {
  if (format.target == ExportTarget::kBnbNf4) return Nf4Parts(stem, shape);
  const uint64_t rows = shape[0], columns = shape[1];
  if (format.target == ExportTarget::kBnbInt8) {
    return {{stem + ".weight", "I8", {rows, columns}},
            {stem + ".SCB", "F32", {rows}},
            {stem + ".weight_format", "U8", {}}};
  }
  const uint64_t groups = columns / GroupSize(format, shape);
  if (format.target == ExportTarget::kAwq) {
    return {{stem + ".qweight", "I32", {columns, rows / 8}},
            {stem + ".qzeros", "I32", {groups, rows / 8}},
            {stem + ".scales", "F16", {groups, rows}}};
  }
  return {{stem + ".qweight", "I32", {columns * format.bits / 32, rows}},
          {stem + ".qzeros", "I32", {groups, rows * format.bits / 32}},
          {stem + ".scales", "F16", {groups, rows}},
          {stem + ".g_idx", "I32", {columns}}};
}

EncodedLayer EncodeLayer(const LayerFormat& format, const Shape& shape,
                         std::span<const float> values, const float* weights, ThreadPool* pool) {
  if (format.target == ExportTarget::kBnbNf4) return EncodeNf4Layer(shape, values);
  if (format.target == ExportTarget::kBnbInt8) return EncodeInt8Layer(shape, values);
  const uint64_t group = GroupSize(format, shape);
  const Groups groups = FitRows(format, shape, values, weights, pool);
  EncodedLayer layer;
  layer.squared_error = SquaredError(values, groups, group);
  if (format.target == ExportTarget::kAwq) {
    const AwqWords words = PackAwq(group, shape, groups.codes, groups.zeros, groups.scales);
    layer.parts = {BytesOf(words.qweight), BytesOf(words.qzeros), BytesOf(words.scales)};
  } else {
    const GptqWords words =
        PackGptq(format.bits, group, shape, groups.codes, groups.zeros, groups.scales);
    layer.parts = {BytesOf(words.qweight), BytesOf(words.qzeros), BytesOf(words.scales),
                   BytesOf(words.g_idx)};
  }
  return layer;
}

}  // namespace edgewise
