// Llama 1 to 3.2, TinyLlama, SmolLM (LlamaForCausalLM) and Mistral: RMSNorm, interleaved RoPE,
// SiLU.
#include "model/arch/arch.h"
#include "model/arch/config.h"
#include "model/arch/keys.h"
#include "model/arch/sliding.h"
#include "model/rope.h"

#include "base/strings.h"

namespace edgewise {
namespace {

constexpr const char* kModelTypes[] = {"llama", "mistral"};
constexpr const char* kClasses[] = {"LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM"};

Status CheckVariant(const ModelSpec& spec) {
  if (spec.rope.rotary_dim == spec.head_dim) return Ok{};
  return MakeError(Code::kUnsupported, "a llama that rotates %u of %u head dimensions",
                   spec.rope.rotary_dim, spec.head_dim);
}

Result<ModelSpec> FromConfig(const Json& json) {
  const ConfigReader config(json);
  EW_TRY(ModelSpec spec, ReadCommonConfig(config, {.context_length = 2048}));
  spec.architecture = kLlama.name;
  EW_TRY(ExpectActivation(config, "hidden_act", "silu"));
  EW_TRY(ExpectFalse(config, "mlp_bias", "biases in the feed-forward are not supported"));
  EW_TRY(const bool bias, config.Bool("attention_bias", false));
  spec.qkv_bias = spec.output_bias = bias;
  EW_TRY(const uint32_t window, config.Uint("sliding_window", 0));
  SetSliding(window, 1, &spec);
  EW_TRY(ExpectScaling(
      spec, {RopeScalingKind::kLinear, RopeScalingKind::kLlama3, RopeScalingKind::kYarn}));
  EW_TRY(CheckVariant(spec));
  return spec;
}

Result<ModelSpec> FromGguf(const Metadata& metadata, const TensorIndex& tensors) {
  const ArchKeys keys(metadata, kLlama.name);
  if (keys.Has("expert_count")) {
    EW_TRY(const uint32_t experts, keys.Uint("expert_count"));
    if (experts > 0) {
      return MakeError(Code::kUnsupported, "a llama with %u experts (Mixtral)", experts);
    }
  }
  EW_TRY(ModelSpec spec, ReadCommonKeys(keys, tensors));
  spec.architecture = kLlama.name;
  spec.fused_gate_up = false;
  EW_TRY(ReadSlidingKeys(keys, 0, 1, &spec));
  EW_TRY(CheckVariant(spec));
  return spec;
}

void WriteKeys(const ModelSpec& spec, Metadata* metadata) {
  WriteCommonKeys(spec, metadata);
  WriteHeadDimKeys(spec, metadata);
  SetKey(spec, "vocab_size", spec.vocab_size, metadata);
  SetKey(spec, "rope.dimension_count", spec.rope.rotary_dim, metadata);
  WriteSlidingKeys(spec, 1, metadata);
}

}  // namespace

const Architecture kLlama = {"llama",    kModelTypes, kClasses, false,
                             FromConfig, FromGguf,    WriteKeys};

}  // namespace edgewise
