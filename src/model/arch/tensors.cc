#include "model/arch/tensors.h"

#include <utility>

#include "base/strings.h"

namespace edgewise {
namespace {

// Adds the tensors of one layer under both names.
class LayerList {
 public:
  LayerList(const ModelSpec& spec, uint32_t layer, std::vector<NeededTensor>* list)
      : spec_(spec),
        gguf_(Format("blk.%u.", layer)),
        hf_(Format("model.layers.%u.", layer)),
        list_(list) {}

  void Norm(const char* name, const char* hf_name, uint32_t size) {
    Add(std::string(name) + ".weight", std::string(hf_name) + ".weight", Shape{size});
  }
  void Linear(const char* name, const char* hf_name, uint64_t rows, uint64_t columns, bool bias,
              uint32_t rotated_heads = 0, std::vector<uint64_t> cuts = {}) {
    const bool permuted = spec_.rope.kind == RopeKind::kInterleaved;
    const uint32_t heads = permuted ? rotated_heads : 0;
    Add(std::string(name) + ".weight", std::string(hf_name) + ".weight", Shape{rows, columns},
        heads, true, std::move(cuts));
    if (bias) {
      Add(std::string(name) + ".bias", std::string(hf_name) + ".bias", Shape{rows}, heads);
    }
  }

 private:
  void Add(const std::string& name, const std::string& hf_name, const Shape& shape,
           uint32_t heads = 0, bool linear = false, std::vector<uint64_t> cuts = {}) {
    list_->push_back({gguf_ + name, hf_ + hf_name, shape, heads, linear, std::move(cuts)});
  }

  const ModelSpec& spec_;
  std::string gguf_, hf_;
  std::vector<NeededTensor>* list_;
};

void AddAttention(const ModelSpec& spec, LayerList* layer) {
  const uint64_t q = spec.q_dim(), kv = spec.kv_dim();
  if (spec.fused_qkv) {
    layer->Linear("attn_qkv", "self_attn.qkv_proj", q + 2 * kv, spec.dim, spec.qkv_bias, 0,
                  {q, q + kv});
  } else {
    layer->Linear("attn_q", "self_attn.q_proj", q, spec.dim, spec.qkv_bias, spec.n_heads);
    layer->Linear("attn_k", "self_attn.k_proj", kv, spec.dim, spec.qkv_bias, spec.n_kv_heads);
    layer->Linear("attn_v", "self_attn.v_proj", kv, spec.dim, spec.qkv_bias);
  }
  if (spec.qk_norm) {
    layer->Norm("attn_q_norm", "self_attn.q_norm", spec.head_dim);
    layer->Norm("attn_k_norm", "self_attn.k_norm", spec.head_dim);
  }
  layer->Linear("attn_output", "self_attn.o_proj", spec.dim, q, spec.output_bias);
}

void AddFeedForward(const ModelSpec& spec, LayerList* layer) {
  if (spec.fused_gate_up) {
    layer->Linear("ffn_up", "mlp.gate_up_proj", uint64_t{2} * spec.ffn_dim, spec.dim, false, 0,
                  {spec.ffn_dim});
  } else {
    layer->Linear("ffn_gate", "mlp.gate_proj", spec.ffn_dim, spec.dim, false);
    layer->Linear("ffn_up", "mlp.up_proj", spec.ffn_dim, spec.dim, false);
  }
  layer->Linear("ffn_down", "mlp.down_proj", spec.dim, spec.ffn_dim, false);
}

void AddLayer(const ModelSpec& spec, uint32_t index, std::vector<NeededTensor>* list) {
  LayerList layer(spec, index, list);
  layer.Norm("attn_norm", "input_layernorm", spec.dim);
  AddAttention(spec, &layer);
  if (spec.post_norms) {
    layer.Norm("post_attention_norm", "post_attention_layernorm", spec.dim);
    layer.Norm("ffn_norm", "pre_feedforward_layernorm", spec.dim);
  } else {
    layer.Norm("ffn_norm", "post_attention_layernorm", spec.dim);
  }
  AddFeedForward(spec, &layer);
  if (spec.post_norms) layer.Norm("post_ffw_norm", "post_feedforward_layernorm", spec.dim);
}

}  // namespace

std::vector<NeededTensor> NeededTensors(const ModelSpec& spec) {
  std::vector<NeededTensor> list;
  const Shape pairs{spec.rope.rotary_dim / 2};
  if (!spec.rope.frequency_factors.empty()) list.push_back({"rope_freqs.weight", "", pairs});
  if (spec.rope.scaling == RopeScalingKind::kLongRope) {
    list.push_back({"rope_factors_long.weight", "", pairs});
    list.push_back({"rope_factors_short.weight", "", pairs});
  }
  const Shape vocabulary{spec.vocab_size, spec.dim};
  list.push_back(
      {"token_embd.weight", "model.embed_tokens.weight", vocabulary, 0, spec.tied_embeddings});
  for (uint32_t layer = 0; layer < spec.n_layers; ++layer) AddLayer(spec, layer, &list);
  list.push_back({"output_norm.weight", "model.norm.weight", Shape{spec.dim}});
  if (!spec.tied_embeddings) {
    list.push_back({"output.weight", "lm_head.weight", vocabulary, 0, true});
  }
  return list;
}

bool IsIgnoredHfTensor(const ModelSpec& spec, std::string_view hf_name) {
  for (const std::string_view ending :
       {"rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached",
        "attention.masked_bias", "attention.bias"}) {
    if (hf_name.ends_with(ending)) return true;
  }
  return spec.tied_embeddings && hf_name == "lm_head.weight";
}

bool IsIgnoredGgufTensor(std::string_view name) {
  return name.ends_with(".attn_rot_embd.weight") || name.ends_with(".attn_rot_embd");
}

}  // namespace edgewise
