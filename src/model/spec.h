// ModelSpec: one description per model. The forward pass, the trainer, exporters and size estimates
// all build from it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace edgewise {

enum class NormKind : uint8_t { kRms, kLayer };
enum class RopeKind : uint8_t { kNone, kInterleaved, kNeox };
enum class RopeScalingKind : uint8_t { kNone, kLinear, kLlama3, kYarn, kLongRope };
enum class Activation : uint8_t { kSilu, kGeluTanh };

struct RopeSpec {
  RopeKind kind = RopeKind::kInterleaved;
  float base = 10000.0f;
  uint32_t rotary_dim = 0;  // <= head_dim, even
  RopeScalingKind scaling = RopeScalingKind::kNone;
  float factor = 1.0f;            // kLinear, kLlama3, kYarn
  float low_freq_factor = 1.0f;   // kLlama3
  float high_freq_factor = 4.0f;  // kLlama3
  uint32_t original_context = 0;  // kLlama3, kYarn, kLongRope
  float beta_fast = 32.0f;  // kYarn: dimensions that turn more often than this keep their frequency
  float beta_slow = 1.0f;   // kYarn: those that turn less often are divided by `factor`
  float attention_factor = 1.0f;  // kYarn, kLongRope: multiplies cos and sin
  // kLongRope, (rotary_dim / 2) each; divide the frequencies. A KV cache whose capacity exceeds
  // original_context uses the long ones throughout.
  std::vector<float> short_factors, long_factors;
  // (rotary_dim / 2), "rope_freqs" of a GGUF; divide the frequencies. Empty: ones, or for kLlama3
  // what its parameters give.
  std::vector<float> frequency_factors;

  bool operator==(const RopeSpec&) const = default;
};

struct ModelSpec {
  std::string architecture;  // GGUF general.architecture: "llama", "phi3", "qwen2", ...
  std::string name;
  uint32_t n_layers = 0;
  uint32_t dim = 0;
  uint32_t n_heads = 0;
  uint32_t n_kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t ffn_dim = 0;
  uint32_t vocab_size = 0;
  uint32_t context_length = 0;  // trained

  NormKind norm = NormKind::kRms;
  float norm_eps = 1e-5f;
  RopeSpec rope;
  Activation activation = Activation::kSilu;
  bool fused_qkv = false;      // one attn_qkv tensor: q rows, then k, then v
  bool fused_gate_up = false;  // one ffn_up tensor: gate rows, then up
  bool qkv_bias = false;
  bool output_bias = false;  // of the attention output projection
  bool qk_norm = false;      // RMSNorm over each head of q and k before RoPE
  bool post_norms =
      false;  // Gemma 2/3: norms after attention and feed-forward, before the residual add
  bool tied_embeddings = false;

  uint32_t sliding_window =
      0;  // 0: full attention; else keys within this many positions, the query's included
  uint32_t sliding_period =
      1;  // layer l slides unless (l + 1) % period == 0; 1: every layer slides
  float local_rope_base =
      0;  // Gemma 3: base of sliding layers, which then take no scaling; 0: rope for all
  float attention_scale = 0;    // multiplies q.k; 0: 1 / sqrt(head_dim)
  float attention_softcap = 0;  // 0: none
  float logit_softcap = 0;      // 0: none
  float embedding_scale = 1;    // Gemma: sqrt(dim)

  bool LayerSlides(uint32_t layer) const {
    return sliding_window > 0 && (sliding_period == 1 || (layer + 1) % sliding_period != 0);
  }
  uint32_t q_dim() const { return n_heads * head_dim; }
  uint32_t kv_dim() const { return n_kv_heads * head_dim; }

  bool operator==(const ModelSpec&) const = default;
};

}  // namespace edgewise
