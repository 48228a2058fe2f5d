// The architecture table: one row per family, one file each. A row maps a Hugging Face config and
// GGUF metadata to a ModelSpec and back; the tensor list follows from the ModelSpec (tensors.h).
#pragma once

#include <span>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "formats/metadata.h"
#include "model/spec.h"
#include "tensor/tensor.h"

namespace edgewise {

struct Architecture {
  const char* name;                          // general.architecture of a GGUF
  std::span<const char* const> model_types;  // "model_type" of a config.json
  std::span<const char* const> class_names;  // "architectures" of a config.json
  bool norms_add_one;  // the Hugging Face norm weights lack 1, which GGUF's contain
  // Errors: kBadData (a field missing, of the wrong type or impossible), kUnsupported (a variant).
  Result<ModelSpec> (*from_config)(const Json& config);
  Result<ModelSpec> (*from_gguf)(const Metadata& metadata, const TensorIndex& tensors);
  // Adds the <name>.* keys that llama.cpp's converter writes.
  void (*write_keys)(const ModelSpec& spec, Metadata* metadata);
};

extern const Architecture kLlama, kPhi3, kQwen2, kQwen3, kGemma2, kGemma3;

std::span<const Architecture* const> AllArchitectures();

// Errors: kUnsupported, naming what was asked for and what there is.
Result<const Architecture*> FindArchitecture(std::string_view gguf_name);
// Chooses by "architectures", which names one model class, and "model_type".
Result<const Architecture*> ArchitectureOfConfig(const Json& config);

// Checks what every consumer of a ModelSpec relies on: sizes in range, heads that divide, an even
// rotary dimension, finite positive factors. Errors: kBadData.
Status CheckSpec(const ModelSpec& spec);

}  // namespace edgewise
