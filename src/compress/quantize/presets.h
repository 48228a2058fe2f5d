// Presets: the named mixtures of number formats that llama-quantize offers, as a table.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "quant/dtype.h"

namespace edgewise {

struct Preset {
  const char* name;     // "q4_k_m"
  DType type;           // of every matrix that no rule of the mixture singles out
  uint32_t file_type;   // general.file_type: llama.cpp's LLAMA_FTYPE number
  const char* summary;  // one line for help texts
};

std::span<const Preset> AllPresets();

// Finds a preset by name, in any case; "q3_k", "q4_k" and "q5_k" mean their _m mixtures.
// Errors: kInvalidArgument (unknown; the message lists the names).
Result<const Preset*> FindPreset(std::string_view name);

// What a tensor does in the model, as far as the mixtures care.
enum class TensorRole : uint8_t {
  kOther,
  kTokenEmbedding,
  kOutput,
  kAttnV,
  kAttnOutput,
  kFfnDown,
};

// Returns the role by GGUF name. A fused attn_qkv counts as kAttnV, because it holds the values
// too.
TensorRole RoleOf(std::string_view name);

// Where a tensor stands in the model.
struct MixPosition {
  TensorRole role = TensorRole::kOther;
  uint32_t index = 0;       // among the tensors of this role, in layer order
  uint32_t count = 0;       // of that role; for kFfnDown the number of layers
  uint32_t group_size = 1;  // query heads per key/value head
  bool large_gqa =
      false;  // an 80-layer model whose values are shared among heads: attn_v is worth more bits
  bool tied = false;  // the token embedding is the output matrix too
  bool has_importance = false;
  uint64_t columns = 0;
};

// Returns the format `preset` gives a tensor there, before any fallback for its row length.
DType MixType(const Preset& preset, const MixPosition& position);

// Returns the format of all values that `type`, F16, BF16 or 2 of each 4 of them, has: F16 for
// S24_F16; else `type`.
DType DenseOf(DType type);

}  // namespace edgewise
