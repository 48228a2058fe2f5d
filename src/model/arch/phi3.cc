// Phi-3, Phi-3.5 and Phi-4 (Phi3ForCausalLM): fused qkv and gate_up, LongRoPE, partial rotation.
#include "model/arch/arch.h"
#include "model/arch/config.h"
#include "model/arch/keys.h"
#include "model/arch/sliding.h"

namespace edgewise {
namespace {

constexpr const char* kModelTypes[] = {"phi3"};
constexpr const char* kClasses[] = {"Phi3ForCausalLM"};

Result<ModelSpec> FromConfig(const Json& json) {
  const ConfigReader config(json);
  EW_TRY(ModelSpec spec, ReadCommonConfig(config, {.context_length = 4096, .norm_eps = 1e-5f}));
  spec.architecture = kPhi3.name;
  spec.rope.kind = RopeKind::kNeox;
  EW_TRY(ExpectActivation(config, "hidden_act", "silu"));
  EW_TRY(ExpectFalse(config, "attention_bias", "biases in phi3 are not supported"));
  spec.fused_qkv = spec.fused_gate_up = true;
  EW_TRY(
      spec.rope.original_context,
      config.Uint("original_max_position_embeddings",
                  spec.rope.original_context ? spec.rope.original_context : spec.context_length));
  EW_TRY(ExpectScaling(spec, {RopeScalingKind::kLongRope}));
  EW_TRY(const uint32_t window, config.Uint("sliding_window", 0));
  SetSliding(window, 1, &spec);
  return spec;
}

Result<ModelSpec> FromGguf(const Metadata& metadata, const TensorIndex& tensors) {
  const ArchKeys keys(metadata, kPhi3.name);
  EW_TRY(ModelSpec spec, ReadCommonKeys(keys, tensors));
  spec.architecture = kPhi3.name;
  spec.rope.kind = RopeKind::kNeox;
  spec.fused_gate_up = true;
  EW_TRY(spec.rope.original_context,
         keys.Uint("rope.scaling.original_context_length", spec.context_length));
  EW_TRY(ReadSlidingKeys(keys, 0, 1, &spec));
  return spec;
}

void WriteKeys(const ModelSpec& spec, Metadata* metadata) {
  WriteCommonKeys(spec, metadata);
  if (spec.head_dim * spec.n_heads != spec.dim) WriteHeadDimKeys(spec, metadata);
  SetKey(spec, "rope.scaling.original_context_length", spec.rope.original_context, metadata);
  SetKey(spec, "rope.dimension_count", spec.rope.rotary_dim, metadata);
  // llama.cpp tells Phi-4 from Phi-3 by a window of 0, so it is written always.
  SetKey(spec, "attention.sliding_window", spec.sliding_window, metadata);
}

}  // namespace

const Architecture kPhi3 = {"phi3", kModelTypes, kClasses, false, FromConfig, FromGguf, WriteKeys};

}  // namespace edgewise
