// What Gemma 2 and Gemma 3 share.
#pragma once

#include <cmath>
#include <cstdint>

#include "model/arch/config.h"
#include "model/arch/keys.h"
#include "model/spec.h"

namespace edgewise {

inline void SetGemmaShape(ModelSpec* spec) {
  spec->rope.kind = RopeKind::kNeox;
  spec->activation = Activation::kGeluTanh;
  spec->post_norms = true;
  spec->embedding_scale = std::sqrt(static_cast<float>(spec->dim));
}

// GGUF has no key for the query scale of Gemma: llama.cpp knows the 27B models, by their number of
// layers, to scale by the embedding size per head instead of the head size.
inline float GemmaAttentionScale(const ModelSpec& spec, uint32_t layers_of_27b) {
  const uint32_t size = spec.n_layers == layers_of_27b ? spec.dim / spec.n_heads : spec.head_dim;
  return 1.0f / std::sqrt(static_cast<float>(size));
}

// Reads query_pre_attn_scalar. Errors: kBadData.
inline Status ReadGemmaAttentionScale(const ConfigReader& config, ModelSpec* spec) {
  EW_TRY(const float scalar, config.Float("query_pre_attn_scalar", 256.0f));
  spec->attention_scale = scalar > 0 ? 1.0f / std::sqrt(scalar) : -1.0f;  // CheckSpec refuses -1
  return Ok{};
}

// Writes attention.scale only where the rule above would give another value.
inline void WriteGemmaAttentionScale(const ModelSpec& spec, uint32_t layers_of_27b,
                                     Metadata* metadata) {
  if (spec.attention_scale == GemmaAttentionScale(spec, layers_of_27b)) return;
  SetKey(spec, "attention.scale", spec.attention_scale, metadata);
}

}  // namespace edgewise
