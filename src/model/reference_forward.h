// Test only: a straightforward forward pass in double precision on the tensors and the config of a
// Hugging Face folder, in Hugging Face's own row order (rotate-half), without a KV cache. Written
// from the papers and the behaviour of the modelling code; shares nothing with the library.
#pragma once

#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "model/tiny_model.h"

namespace edgewise {

class ReferenceForward {
 public:
  explicit ReferenceForward(const TinyModel& model) : m_(model) {
    type_ = *m_.config.Find("model_type")->AsString();
    gemma_ = type_.starts_with("gemma");
    dim_ = Size("hidden_size");
    heads_ = Size("num_attention_heads");
    kv_heads_ = Size("num_key_value_heads");
    head_ = Size("head_dim");
    ffn_ = Size("intermediate_size");
    eps_ = Number("rms_norm_eps", 1e-6);
  }

  // Of the last Run: the residual stream before the first layer and after each, (tokens, dim), and
  // the rotated queries, keys and values of each layer.
  std::vector<std::vector<double>> streams, queries, keys, values;

  // Returns (tokens, vocab_size) logits.
  std::vector<double> Run(const std::vector<int32_t>& tokens) {
    n_ = tokens.size();
    for (auto* kept : {&streams, &queries, &keys, &values}) kept->clear();
    std::vector<double> x;
    for (const int32_t token : tokens) {
      for (size_t c = 0; c < dim_; ++c) {
        const double value = At("model.embed_tokens.weight", static_cast<size_t>(token) * dim_ + c);
        x.push_back(gemma_ ? value * std::sqrt(static_cast<double>(dim_)) : value);
      }
    }
    streams.push_back(x);
    for (size_t layer = 0; layer < Size("num_hidden_layers"); ++layer) {
      prefix_ = "model.layers." + std::to_string(layer) + ".";
      Add(&x, Attention(layer, Norm(x, prefix_ + "input_layernorm", dim_)),
          gemma_ ? prefix_ + "post_attention_layernorm" : "");
      Add(&x,
          FeedForward(
              Norm(x, prefix_ + (gemma_ ? "pre_feedforward_layernorm" : "post_attention_layernorm"),
                   dim_)),
          gemma_ ? prefix_ + "post_feedforward_layernorm" : "");
      streams.push_back(x);
    }
    const std::vector<double> last = Norm(x, "model.norm", dim_);
    const bool tied = m_.tensors.count("lm_head.weight") == 0;
    std::vector<double> logits =
        Linear(last, tied ? "model.embed_tokens" : "lm_head", 0, Size("vocab_size"), dim_);
    const double cap = Number("final_logit_softcapping", 0);
    for (double& logit : logits) logit = cap > 0 ? cap * std::tanh(logit / cap) : logit;
    return logits;
  }

 private:
  double Number(const char* key, double fallback) const {
    const Json* value = m_.config.Find(key);
    return value && value->AsDouble() ? *value->AsDouble() : fallback;
  }
  size_t Size(const char* key) const { return static_cast<size_t>(Number(key, 0)); }
  double At(const std::string& name, size_t i) const {
    return static_cast<double>(m_.tensors.at(name).values[i]);
  }

  // y = x W^T + b over rows [first, first + rows) of the tensor.
  std::vector<double> Linear(const std::vector<double>& x, const std::string& name, size_t first,
                             size_t rows, size_t columns) const {
    const std::vector<float>& w = m_.tensors.at(name + ".weight").values;
    const bool bias = m_.tensors.count(name + ".bias") > 0;
    std::vector<double> y;
    for (size_t t = 0; t < n_; ++t) {
      for (size_t r = first; r < first + rows; ++r) {
        double sum = bias ? At(name + ".bias", r) : 0.0;
        for (size_t c = 0; c < columns; ++c) {
          sum += static_cast<double>(w[r * columns + c]) * x[t * columns + c];
        }
        y.push_back(sum);
      }
    }
    return y;
  }

  // RMSNorm over runs of `size` values; Gemma stores the weight minus 1.
  std::vector<double> Norm(std::vector<double> x, const std::string& name, size_t size) const {
    for (size_t begin = 0; begin < x.size(); begin += size) {
      double squares = 0;
      for (size_t i = 0; i < size; ++i) squares += x[begin + i] * x[begin + i];
      const double scale = 1.0 / std::sqrt(squares / static_cast<double>(size) + eps_);
      for (size_t i = 0; i < size; ++i) {
        x[begin + i] *= scale * (At(name + ".weight", i) + (gemma_ ? 1.0 : 0.0));
      }
    }
    return x;
  }

  void Add(std::vector<double>* x, std::vector<double> branch, const std::string& norm) const {
    if (!norm.empty()) branch = Norm(std::move(branch), norm, dim_);
    for (size_t i = 0; i < x->size(); ++i) (*x)[i] += branch[i];
  }

  bool Slides(size_t layer) const {
    if (const Json* types = m_.config.Find("layer_types")) {
      return *(*types->AsArray())[layer].AsString() == "sliding_attention";
    }
    if (type_ == "gemma2") return layer % 2 == 0;
    if (type_ == "gemma3_text") return (layer + 1) % 6 != 0;
    if (type_ == "qwen2") {
      const Json* use = m_.config.Find("use_sliding_window");
      return use && *use->AsBool() && layer >= Size("max_window_layers");
    }
    return m_.config.Find("sliding_window") != nullptr;
  }

  // The scaling object and base that apply to this layer.
  std::vector<double> InverseFrequencies(size_t layer, size_t rotary, double* attention) const;
  void Rotate(std::vector<double>* x, size_t count, size_t layer) const;
  std::vector<double> Attention(size_t layer, const std::vector<double>& x);
  std::vector<double> FeedForward(const std::vector<double>& x) const;

  const TinyModel& m_;
  std::string type_, prefix_;
  bool gemma_ = false;
  size_t dim_ = 0, heads_ = 0, kv_heads_ = 0, head_ = 0, ffn_ = 0, n_ = 0;
  double eps_ = 0;
};

inline std::vector<double> ReferenceForward::InverseFrequencies(size_t layer, size_t rotary,
                                                                double* attention) const {
  double base = Number("rope_theta", gemma_ && type_ == "gemma3_text" ? 1e6 : 10000.0);
  const Json* scaling = m_.config.Find("rope_scaling");
  if (const Json* both = m_.config.Find("rope_parameters")) {
    scaling = both->Find(Slides(layer) ? "sliding_attention" : "full_attention");
    base = *scaling->Find("rope_theta")->AsDouble();
  } else if (type_ == "gemma3_text" && Slides(layer)) {
    base = Number("rope_local_base_freq", 10000.0);
    scaling = nullptr;
  }
  std::vector<double> inverse;
  for (size_t i = 0; i < rotary; i += 2) {
    inverse.push_back(1.0 / std::pow(base, static_cast<double>(i) / static_cast<double>(rotary)));
  }
  *attention = 1.0;
  if (!scaling || !scaling->Find("rope_type")) return inverse;
  const auto get = [&](const char* key, double fallback) {
    const Json* value = scaling->Find(key);
    return value ? *value->AsDouble() : fallback;
  };
  const std::string type = *scaling->Find("rope_type")->AsString();
  const double factor = get("factor", 1.0);
  const double pi = std::numbers::pi;
  const double original =
      get("original_max_position_embeddings", Number("original_max_position_embeddings", 0));
  const double pairs = static_cast<double>(rotary) / 2;
  const auto correction = [&](double rotations) {
    return static_cast<double>(rotary) * std::log(original / (rotations * 2 * pi)) /
           (2 * std::log(base));
  };
  for (size_t i = 0; i < inverse.size(); ++i) {
    double& f = inverse[i];
    if (type == "linear") {
      f /= factor;
    } else if (type == "llama3") {
      const double low = get("low_freq_factor", 1), high = get("high_freq_factor", 4);
      const double wavelength = 2 * pi / f;
      if (wavelength > original / low) {
        f /= factor;
      } else if (wavelength >= original / high) {
        const double smooth = (original / wavelength - low) / (high - low);
        f = (1 - smooth) * f / factor + smooth * f;
      }
    } else if (type == "yarn") {
      const double from = std::max(std::floor(correction(get("beta_fast", 32))), 0.0);
      const double to = std::min(std::ceil(correction(get("beta_slow", 1))), 2 * pairs - 1);
      const double span = to == from ? 0.001 : to - from;
      const double ramp = std::min(1.0, std::max(0.0, (static_cast<double>(i) - from) / span));
      f = f / factor * ramp + f * (1 - ramp);
      *attention = 0.1 * std::log(factor) + 1.0;
    } else if (type == "longrope") {
      const bool is_long = static_cast<double>(n_) > original;
      f /= *(*scaling->Find(is_long ? "long_factor" : "short_factor")->AsArray())[i].AsDouble();
      const double growth = Number("max_position_embeddings", 0) / original;
      *attention = std::sqrt(1 + std::log(growth) / std::log(original));
    }
  }
  return inverse;
}

// x is (tokens, count heads, head): value i of the first half pairs with value i of the second.
inline void ReferenceForward::Rotate(std::vector<double>* x, size_t count, size_t layer) const {
  const auto rotary =
      static_cast<size_t>(static_cast<double>(head_) * Number("partial_rotary_factor", 1.0));
  double attention = 1.0;
  const std::vector<double> inverse = InverseFrequencies(layer, rotary, &attention);
  for (size_t t = 0; t < n_; ++t) {
    for (size_t h = 0; h < count; ++h) {
      double* head = x->data() + (t * count + h) * head_;
      for (size_t i = 0; i < rotary / 2; ++i) {
        const double angle = static_cast<double>(t) * inverse[i];
        const double c = std::cos(angle) * attention, s = std::sin(angle) * attention;
        const double a = head[i], b = head[i + rotary / 2];
        head[i] = a * c - b * s;
        head[i + rotary / 2] = b * c + a * s;
      }
    }
  }
}

inline std::vector<double> ReferenceForward::Attention(size_t layer, const std::vector<double>& x) {
  const std::string attn = prefix_ + "self_attn.";
  const size_t q_dim = heads_ * head_, kv_dim = kv_heads_ * head_;
  const bool fused = m_.tensors.count(attn + "qkv_proj.weight") > 0;
  std::vector<double> q = Linear(x, attn + (fused ? "qkv_proj" : "q_proj"), 0, q_dim, dim_);
  std::vector<double> k =
      Linear(x, attn + (fused ? "qkv_proj" : "k_proj"), fused ? q_dim : 0, kv_dim, dim_);
  const std::vector<double> v =
      Linear(x, attn + (fused ? "qkv_proj" : "v_proj"), fused ? q_dim + kv_dim : 0, kv_dim, dim_);
  if (m_.tensors.count(attn + "q_norm.weight")) {
    q = Norm(std::move(q), attn + "q_norm", head_);
    k = Norm(std::move(k), attn + "k_norm", head_);
  }
  Rotate(&q, heads_, layer);
  Rotate(&k, kv_heads_, layer);
  queries.push_back(q);
  keys.push_back(k);
  values.push_back(v);
  const double scale =
      1.0 / std::sqrt(gemma_ ? Number("query_pre_attn_scalar", 256) : static_cast<double>(head_));
  const double cap = Number("attn_logit_softcapping", 0);
  std::vector<double> out(n_ * q_dim);
  for (size_t t = 0; t < n_; ++t) {
    for (size_t h = 0; h < heads_; ++h) {
      const size_t kv_head = h / (heads_ / kv_heads_);
      std::vector<double> weights(t + 1);
      double total = 0;
      for (size_t s = 0; s <= t; ++s) {
        if (Slides(layer) && t - s >= Size("sliding_window")) continue;
        double score = 0;
        for (size_t i = 0; i < head_; ++i) {
          score += q[t * q_dim + h * head_ + i] * k[s * kv_dim + kv_head * head_ + i];
        }
        score *= scale;
        if (cap > 0) score = cap * std::tanh(score / cap);
        weights[s] = std::exp(score);
        total += weights[s];
      }
      for (size_t s = 0; s <= t; ++s) {
        for (size_t i = 0; i < head_; ++i) {
          out[t * q_dim + h * head_ + i] +=
              weights[s] / total * v[s * kv_dim + kv_head * head_ + i];
        }
      }
    }
  }
  return Linear(out, attn + "o_proj", 0, dim_, q_dim);
}

inline std::vector<double> ReferenceForward::FeedForward(const std::vector<double>& x) const {
  const std::string mlp = prefix_ + "mlp.";
  const bool fused = m_.tensors.count(mlp + "gate_up_proj.weight") > 0;
  std::vector<double> gate = Linear(x, mlp + (fused ? "gate_up_proj" : "gate_proj"), 0, ffn_, dim_);
  const std::vector<double> up =
      Linear(x, mlp + (fused ? "gate_up_proj" : "up_proj"), fused ? ffn_ : 0, ffn_, dim_);
  for (size_t i = 0; i < gate.size(); ++i) {
    const double g = gate[i];
    const double gelu =
        0.5 * g * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (g + 0.044715 * g * g * g)));
    gate[i] = up[i] * (gemma_ ? gelu : g / (1 + std::exp(-g)));
  }
  return Linear(gate, mlp + "down_proj", 0, dim_, ffn_);
}

}  // namespace edgewise
