// Gemma 2 (Gemma2ForCausalLM): norms after each half layer, soft-capped scores and logits, every
// other layer sees a sliding window.
#include "model/arch/arch.h"
#include "model/arch/config.h"
#include "model/arch/gemma.h"
#include "model/arch/keys.h"

namespace edgewise {
namespace {

constexpr const char* kModelTypes[] = {"gemma2"};
constexpr const char* kClasses[] = {"Gemma2ForCausalLM"};
constexpr uint32_t kPeriod = 2;
constexpr uint32_t kLayersOf27b = 46;

Result<ModelSpec> FromConfig(const Json& json) {
  const ConfigReader config(json);
  EW_TRY(ModelSpec spec, ReadCommonConfig(config, {.n_heads = 8,
                                                   .n_kv_heads = 4,
                                                   .head_dim = 256,
                                                   .vocab_size = 256000,
                                                   .context_length = 8192,
                                                   .tied_embeddings = true}));
  spec.architecture = kGemma2.name;
  SetGemmaShape(&spec);
  EW_TRY(ExpectScaling(spec, {RopeScalingKind::kLinear}));
  EW_TRY(ExpectActivation(config, "hidden_activation", "gelu_pytorch_tanh"));
  EW_TRY(ExpectFalse(config, "attention_bias", "biases in gemma2 are not supported"));
  EW_TRY(ReadGemmaAttentionScale(config, &spec));
  // Present but null means no cap; absent means the class's default.
  const auto cap = [&](const char* key, float standard) {
    return config.Float(key, json.Find(key) ? 0.0f : standard);
  };
  EW_TRY(spec.attention_softcap, cap("attn_logit_softcapping", 50.0f));
  EW_TRY(spec.logit_softcap, cap("final_logit_softcapping", 30.0f));
  EW_TRY(const uint32_t window, config.Uint("sliding_window", 4096));
  EW_TRY(ReadLayerTypes(config, window, kPeriod, &spec));
  return spec;
}

Result<ModelSpec> FromGguf(const Metadata& metadata, const TensorIndex& tensors) {
  const ArchKeys keys(metadata, kGemma2.name);
  EW_TRY(ModelSpec spec, ReadCommonKeys(keys, tensors));
  spec.architecture = kGemma2.name;
  spec.fused_gate_up = false;
  SetGemmaShape(&spec);
  if (spec.attention_scale == 0 && spec.n_heads > 0) {
    spec.attention_scale = GemmaAttentionScale(spec, kLayersOf27b);
  }
  EW_TRY(spec.attention_softcap, keys.Float("attn_logit_softcapping", 50.0f));
  EW_TRY(spec.logit_softcap, keys.Float("final_logit_softcapping", 30.0f));
  EW_TRY(ReadSlidingKeys(keys, 4096, kPeriod, &spec));
  return spec;
}

void WriteKeys(const ModelSpec& spec, Metadata* metadata) {
  WriteCommonKeys(spec, metadata);
  WriteHeadDimKeys(spec, metadata);
  SetKey(spec, "attn_logit_softcapping", spec.attention_softcap, metadata);
  SetKey(spec, "final_logit_softcapping", spec.logit_softcap, metadata);
  WriteSlidingKeys(spec, kPeriod, metadata);
  WriteGemmaAttentionScale(spec, kLayersOf27b, metadata);
}

}  // namespace

const Architecture kGemma2 = {"gemma2",   kModelTypes, kClasses, true,
                              FromConfig, FromGguf,    WriteKeys};

}  // namespace edgewise
