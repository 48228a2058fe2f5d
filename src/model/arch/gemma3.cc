// Gemma 3, text (Gemma3ForCausalLM): as Gemma 2 with RMSNorm on q and k in place of the score cap,
// five sliding layers to a full one, each kind with its own RoPE base.
#include "model/arch/arch.h"
#include "model/arch/config.h"
#include "model/arch/gemma.h"
#include "model/arch/keys.h"

namespace edgewise {
namespace {

constexpr const char* kModelTypes[] = {"gemma3_text"};
constexpr const char* kClasses[] = {"Gemma3ForCausalLM"};
constexpr uint32_t kPeriod = 6;
constexpr uint32_t kLayersOf27b = 62;

Result<ModelSpec> FromConfig(const Json& json) {
  const ConfigReader config(json);
  EW_TRY(ModelSpec spec, ReadCommonConfig(config, {.n_heads = 8,
                                                   .n_kv_heads = 4,
                                                   .head_dim = 256,
                                                   .vocab_size = 262208,
                                                   .context_length = 131072,
                                                   .rope_base = 1e6f,
                                                   .tied_embeddings = true}));
  spec.architecture = kGemma3.name;
  SetGemmaShape(&spec);
  spec.qk_norm = true;
  EW_TRY(ExpectScaling(spec, {RopeScalingKind::kLinear}));
  if (spec.local_rope_base == 0) spec.local_rope_base = 10000.0f;
  EW_TRY(ExpectActivation(config, "hidden_activation", "gelu_pytorch_tanh"));
  EW_TRY(ExpectFalse(config, "attention_bias", "biases in gemma3 are not supported"));
  EW_TRY(ExpectFalse(config, "use_bidirectional_attention", "the model does not generate text"));
  EW_TRY(ReadGemmaAttentionScale(config, &spec));
  EW_TRY(spec.attention_softcap, config.Float("attn_logit_softcapping", 0.0f));
  EW_TRY(spec.logit_softcap, config.Float("final_logit_softcapping", 0.0f));
  EW_TRY(const uint32_t window, config.Uint("sliding_window", 4096));
  EW_TRY(const uint32_t older_pattern, config.Uint("sliding_window_pattern", kPeriod));
  EW_TRY(const uint32_t pattern, config.Uint("_sliding_window_pattern", older_pattern));
  // In this key 1 means that every layer is full.
  EW_TRY(ReadLayerTypes(config, window, pattern == 1 ? 0 : pattern, &spec));
  return spec;
}

Result<ModelSpec> FromGguf(const Metadata& metadata, const TensorIndex& tensors) {
  const ArchKeys keys(metadata, kGemma3.name);
  EW_TRY(ModelSpec spec, ReadCommonKeys(keys, tensors));
  spec.architecture = kGemma3.name;
  spec.fused_gate_up = false;
  SetGemmaShape(&spec);
  spec.qk_norm = true;
  if (spec.attention_scale == 0 && spec.n_heads > 0) {
    spec.attention_scale = GemmaAttentionScale(spec, kLayersOf27b);
  }
  EW_TRY(spec.attention_softcap, keys.Float("attn_logit_softcapping", 0.0f));
  EW_TRY(spec.logit_softcap, keys.Float("final_logit_softcapping", 0.0f));
  EW_TRY(spec.local_rope_base, keys.Float("rope.freq_base_swa", 10000.0f));
  EW_TRY(ReadSlidingKeys(keys, 0, kPeriod, &spec));
  return spec;
}

void WriteKeys(const ModelSpec& spec, Metadata* metadata) {
  WriteCommonKeys(spec, metadata);
  SetKey(spec, "rope.freq_base_swa", spec.local_rope_base, metadata);
  WriteHeadDimKeys(spec, metadata);
  if (spec.attention_softcap > 0) {
    SetKey(spec, "attn_logit_softcapping", spec.attention_softcap, metadata);
  }
  if (spec.logit_softcap > 0) {
    SetKey(spec, "final_logit_softcapping", spec.logit_softcap, metadata);
  }
  WriteSlidingKeys(spec, kPeriod, metadata);
  WriteGemmaAttentionScale(spec, kLayersOf27b, metadata);
}

}  // namespace

const Architecture kGemma3 = {"gemma3",   kModelTypes, kClasses, true,
                              FromConfig, FromGguf,    WriteKeys};

}  // namespace edgewise
