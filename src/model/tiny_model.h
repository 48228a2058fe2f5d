// Test only: tiny random models as Hugging Face folders, one function per family.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/rng.h"
#include "model/model.h"
#include "tests/test_data.h"

namespace edgewise {

struct TinyTensor {
  std::vector<uint64_t> shape;
  std::vector<float> values;
};

// The content of a Hugging Face folder: config.json and F32 tensors by name.
struct TinyModel {
  Json config;
  std::map<std::string, TinyTensor> tensors;

  void AddRandom(Rng* rng, const std::string& name, std::vector<uint64_t> shape, double mean,
                 double deviation) {
    uint64_t count = 1;
    for (const uint64_t size : shape) count *= size;
    TinyTensor tensor{std::move(shape), std::vector<float>(count)};
    for (float& value : tensor.values) {
      value = static_cast<float>(mean + deviation * rng->Gaussian());
    }
    tensors[name] = std::move(tensor);
  }

  // safetensors: header length, JSON header, data without gaps.
  void Write(const std::string& folder) const {
    std::ofstream(folder + "/config.json") << config.Dump(2);
    Json header{JsonObject{}};
    uint64_t offset = 0;
    for (const auto& [name, tensor] : tensors) {
      const uint64_t bytes = tensor.values.size() * sizeof(float);
      JsonArray shape(tensor.shape.begin(), tensor.shape.end());
      header.Set(name, Json(JsonObject{{"dtype", "F32"},
                                       {"shape", Json(std::move(shape))},
                                       {"data_offsets", JsonArray{offset, offset + bytes}}}));
      offset += bytes;
    }
    std::string text = header.Dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const uint64_t length = text.size();
    std::ofstream out(folder + "/model.safetensors", std::ios::binary);
    out.write(reinterpret_cast<const char*>(&length), 8);
    out << text;
    for (const auto& [name, tensor] : tensors) {
      out.write(reinterpret_cast<const char*>(tensor.values.data()),
                static_cast<std::streamsize>(tensor.values.size() * sizeof(float)));
    }
    REQUIRE(out.good());
  }
};

struct TinySizes {
  uint64_t dim = 48, layers = 3, heads = 4, kv_heads = 2, head_dim = 12, ffn = 40, vocab = 37;
};

// Sets the config keys that all families share.
inline Json TinyConfig(const char* model_class, const char* type, const TinySizes& s) {
  Json config;
  config.Set("architectures", JsonArray{model_class}).Set("model_type", type);
  config.Set("hidden_size", s.dim).Set("intermediate_size", s.ffn).Set("vocab_size", s.vocab);
  config.Set("num_hidden_layers", s.layers).Set("num_attention_heads", s.heads);
  config.Set("num_key_value_heads", s.kv_heads).Set("head_dim", s.head_dim);
  config.Set("max_position_embeddings", 64).Set("rms_norm_eps", 1e-5).Set("rope_theta", 10000.0);
  return config;
}

struct TinyParts {
  bool bias_qkv = false, bias_output = false, qk_norm = false, fused = false, gemma = false;
  bool head = true;  // a tensor lm_head
};

// Fills in the tensors that modelling code of `parts` has.
inline TinyModel TinyWeights(Json config, const TinySizes& s, const TinyParts& parts,
                             uint64_t seed) {
  TinyModel model{std::move(config), {}};
  Rng rng(seed);
  const double norm_mean = parts.gemma ? 0.0 : 1.0;
  const auto norm = [&](const std::string& name, uint64_t size) {
    model.AddRandom(&rng, name + ".weight", {size}, norm_mean, 0.2);
  };
  const auto linear = [&](const std::string& name, uint64_t rows, uint64_t columns, double gain,
                          bool bias) {
    model.AddRandom(&rng, name + ".weight", {rows, columns}, 0,
                    gain / std::sqrt(static_cast<double>(columns)));
    if (bias) model.AddRandom(&rng, name + ".bias", {rows}, 0, 0.3);
  };
  const uint64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  model.AddRandom(&rng, "model.embed_tokens.weight", {s.vocab, s.dim}, 0, 1.0);
  for (uint64_t l = 0; l < s.layers; ++l) {
    const std::string layer = "model.layers." + std::to_string(l) + ".";
    norm(layer + "input_layernorm", s.dim);
    norm(layer + "post_attention_layernorm", s.dim);
    if (parts.gemma) {
      norm(layer + "pre_feedforward_layernorm", s.dim);
      norm(layer + "post_feedforward_layernorm", s.dim);
    }
    // A gain above 1 on q and k makes attention far from uniform.
    if (parts.fused) {
      linear(layer + "self_attn.qkv_proj", q + 2 * kv, s.dim, 1.6, parts.bias_qkv);
      linear(layer + "mlp.gate_up_proj", 2 * s.ffn, s.dim, 1.2, false);
    } else {
      linear(layer + "self_attn.q_proj", q, s.dim, 1.6, parts.bias_qkv);
      linear(layer + "self_attn.k_proj", kv, s.dim, 1.6, parts.bias_qkv);
      linear(layer + "self_attn.v_proj", kv, s.dim, 1.0, parts.bias_qkv);
      linear(layer + "mlp.gate_proj", s.ffn, s.dim, 1.2, false);
      linear(layer + "mlp.up_proj", s.ffn, s.dim, 1.0, false);
    }
    linear(layer + "self_attn.o_proj", s.dim, q, 1.0, parts.bias_output);
    linear(layer + "mlp.down_proj", s.dim, s.ffn, 1.0, false);
    if (parts.qk_norm) {
      norm(layer + "self_attn.q_norm", s.head_dim);
      norm(layer + "self_attn.k_norm", s.head_dim);
    }
  }
  norm("model.norm", s.dim);
  if (parts.head) linear("lm_head", s.vocab, s.dim, 1.0, false);
  return model;
}

inline TinyModel TinyLlama(uint64_t seed = 1) {
  const TinySizes sizes;
  return TinyWeights(TinyConfig("LlamaForCausalLM", "llama", sizes), sizes, {}, seed);
}

inline std::vector<int32_t> TinyTokens(size_t count, uint64_t vocab, uint64_t seed = 9) {
  Rng rng(seed);
  std::vector<int32_t> tokens;
  while (tokens.size() < count) tokens.push_back(static_cast<int32_t>(rng.Below(vocab)));
  return tokens;
}

inline std::unique_ptr<Model> LoadTestModel(const std::string& path) {
  auto checkpoint = Checkpoint::Open(path);
  REQUIRE_MESSAGE(checkpoint.has_value(), (checkpoint ? "" : checkpoint.error().message));
  ThreadPool pool(1);
  auto model = Model::Load(*std::move(checkpoint), &pool);
  REQUIRE_MESSAGE(model.has_value(), (model ? "" : model.error().message));
  return *std::move(model);
}

}  // namespace edgewise
