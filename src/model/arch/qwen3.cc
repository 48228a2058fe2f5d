// Qwen 3 dense (Qwen3ForCausalLM): RMSNorm on each head of q and k, no biases.
#include "model/arch/arch.h"
#include "model/arch/config.h"
#include "model/arch/keys.h"
#include "model/arch/qwen.h"

namespace edgewise {
namespace {

constexpr const char* kModelTypes[] = {"qwen3"};
constexpr const char* kClasses[] = {"Qwen3ForCausalLM"};

Result<ModelSpec> FromConfig(const Json& json) {
  const ConfigReader config(json);
  EW_TRY(ModelSpec spec, ReadQwenConfig(config));
  spec.architecture = kQwen3.name;
  EW_TRY(ExpectScaling(spec, {RopeScalingKind::kLinear, RopeScalingKind::kYarn}));
  if (!config.Find("head_dim")) {  // Qwen3Config's own default
    spec.head_dim = 128;
    spec.rope.rotary_dim = 128;
  }
  EW_TRY(const bool bias, config.Bool("attention_bias", false));
  spec.qkv_bias = spec.output_bias = bias;
  spec.qk_norm = true;
  return spec;
}

Result<ModelSpec> FromGguf(const Metadata& metadata, const TensorIndex& tensors) {
  EW_TRY(ModelSpec spec, ReadQwenKeys(ArchKeys(metadata, kQwen3.name), tensors));
  spec.architecture = kQwen3.name;
  spec.qk_norm = true;
  return spec;
}

void WriteKeys(const ModelSpec& spec, Metadata* metadata) {
  WriteCommonKeys(spec, metadata);
  WriteHeadDimKeys(spec, metadata);
  WriteSlidingKeys(spec, 1, metadata);
}

}  // namespace

const Architecture kQwen3 = {"qwen3",    kModelTypes, kClasses, false,
                             FromConfig, FromGguf,    WriteKeys};

}  // namespace edgewise
