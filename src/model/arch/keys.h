// The <architecture>.* keys of a GGUF, read and written: the parts that families share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "formats/metadata.h"
#include "model/spec.h"
#include "tensor/tensor.h"

namespace edgewise {

// Typed access to the keys that start with "<architecture>.".
class ArchKeys {
 public:
  // `metadata` must outlive this object.
  ArchKeys(const Metadata& metadata, std::string architecture)
      : metadata_(&metadata), prefix_(std::move(architecture) + ".") {}

  bool Has(const char* suffix) const { return metadata_->Find(prefix_ + suffix) != nullptr; }
  const Metadata& metadata() const { return *metadata_; }
  std::string Name(const char* suffix) const { return prefix_ + suffix; }
  // Errors: kBadData (absent without fallback, another type, out of range).
  Result<uint32_t> Uint(const char* suffix, std::optional<uint32_t> fallback = {}) const;
  Result<float> Float(const char* suffix, std::optional<float> fallback = {}) const;

 private:
  const Metadata* metadata_;
  std::string prefix_;
};

// Reads sizes, norm, RoPE with its scaling, and what the tensors present tell: tied embeddings,
// fused tensors, biases, RoPE factors. Errors: kBadData, kUnsupported.
Result<ModelSpec> ReadCommonKeys(const ArchKeys& keys, const TensorIndex& tensors);

// Reads attention.sliding_window and its pattern. Errors: kBadData, kUnsupported.
Status ReadSlidingKeys(const ArchKeys& keys, uint32_t default_window, uint32_t default_period,
                       ModelSpec* spec);

// Writes "<architecture>.<suffix>".
void SetKey(const ModelSpec& spec, const char* suffix, MetaValue value, Metadata* metadata);
// Writes the numbers of layers and heads, the embedding and the feed-forward size.
void WriteSizeKeys(const ModelSpec& spec, Metadata* metadata);
// Writes the sizes, the norm epsilon and RoPE base and scaling.
void WriteCommonKeys(const ModelSpec& spec, Metadata* metadata);
// Writes rope.scaling.* for the scalings that GGUF describes by keys.
void WriteRopeScalingKeys(const ModelSpec& spec, Metadata* metadata);
void WriteHeadDimKeys(const ModelSpec& spec, Metadata* metadata);
// Writes attention.sliding_window, and its pattern where that differs from llama.cpp's default.
void WriteSlidingKeys(const ModelSpec& spec, uint32_t default_period, Metadata* metadata);

// Returns "3.9M", "1.1B": general.size_label as llama.cpp's converter rounds it.
std::string SizeLabel(uint64_t parameters);

}  // namespace edgewise
