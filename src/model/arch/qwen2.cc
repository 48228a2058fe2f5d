// Qwen 1.5, 2 and 2.5 (Qwen2ForCausalLM): biases on q, k and v, NeoX RoPE, YaRN for long contexts.
#include "model/arch/arch.h"
#include "model/arch/config.h"
#include "model/arch/keys.h"
#include "model/arch/qwen.h"

namespace edgewise {
namespace {

constexpr const char* kModelTypes[] = {"qwen2"};
constexpr const char* kClasses[] = {"Qwen2ForCausalLM"};

Result<ModelSpec> FromConfig(const Json& json) {
  EW_TRY(ModelSpec spec, ReadQwenConfig(ConfigReader(json)));
  spec.architecture = kQwen2.name;
  spec.qkv_bias = true;
  EW_TRY(ExpectScaling(spec, {RopeScalingKind::kLinear, RopeScalingKind::kYarn}));
  return spec;
}

Result<ModelSpec> FromGguf(const Metadata& metadata, const TensorIndex& tensors) {
  EW_TRY(ModelSpec spec, ReadQwenKeys(ArchKeys(metadata, kQwen2.name), tensors));
  spec.architecture = kQwen2.name;
  return spec;
}

void WriteKeys(const ModelSpec& spec, Metadata* metadata) {
  WriteCommonKeys(spec, metadata);
  if (spec.head_dim * spec.n_heads != spec.dim) WriteHeadDimKeys(spec, metadata);
  WriteSlidingKeys(spec, 1, metadata);
}

}  // namespace

const Architecture kQwen2 = {"qwen2",    kModelTypes, kClasses, false,
                             FromConfig, FromGguf,    WriteKeys};

}  // namespace edgewise
