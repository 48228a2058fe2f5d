// Linear layers of a Hugging Face folder that GPTQ, AWQ or bitsandbytes has quantized: what
// config.json says of them ("quantization_config"), and the one place that tells layouts apart.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "formats/awq_layout.h"
#include "formats/bnb_layout.h"
#include "formats/gptq_layout.h"
#include "tensor/tensor.h"

namespace edgewise {

struct BnbOptions {};  // each layer carries its own description

using QuantizationConfig = std::variant<GptqOptions, AwqOptions, BnbOptions>;

// Returns what a config.json says, or nothing where it has no quantization_config. Errors: kBadData
// (a field missing or of the wrong type), kUnsupported (a method, version or width that we lack;
// those that we have are named).
Result<std::optional<QuantizationConfig>> ReadQuantizationConfig(const Json& config);

// One checked matrix and the tensors that it is made of.
class QuantizedMatrix {
 public:
  // Finds the matrix "x.weight" of `shape` (rows, columns) in `tensors`, or nothing where the
  // folder does not hold it quantized. The views live as long as their file. Errors: those of the
  // layouts, and kBadData (a part is missing); the part is named.
  static Result<std::optional<QuantizedMatrix>> Find(const QuantizationConfig& config,
                                                     const TensorIndex& tensors,
                                                     const std::string& weight_name,
                                                     const Shape& shape);
  // Writes the (rows, columns) values.
  void Decode(float* values) const;
  // For people: "gptq-4bit", "awq-4bit", "bnb-4bit", "bnb-8bit".
  std::string name() const;
  std::span<const NamedTensor> parts() const { return parts_; }

 private:
  using Layout = std::variant<GptqMatrix, AwqMatrix, Bnb4Matrix, Bnb8Matrix>;
  QuantizedMatrix(Layout layout, std::vector<NamedTensor> parts)
      : layout_(std::move(layout)), parts_(std::move(parts)) {}

  Layout layout_;
  std::vector<NamedTensor> parts_;
};

}  // namespace edgewise
