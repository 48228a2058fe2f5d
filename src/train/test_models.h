// Test only: a tiny model for each architecture and option that training knows, and a batch.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "formats/gguf.h"
#include "model/tiny_model.h"
#include "train/parameters.h"
#include "train/test_batch.h"

namespace edgewise::train {

namespace test_models {

inline TinyModel LlamaWithBiases() {
  TinySizes sizes;
  sizes.head_dim = 10;
  sizes.kv_heads = 4;
  Json scaling(JsonObject{{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0}});
  scaling.Set("high_freq_factor", 4.0).Set("original_max_position_embeddings", 32);
  Json config = TinyConfig("LlamaForCausalLM", "llama", sizes);
  config.Set("attention_bias", true).Set("tie_word_embeddings", true);
  config.Set("rope_scaling", scaling);
  return TinyWeights(config, sizes, {.bias_qkv = true, .bias_output = true, .head = false}, 2);
}

inline TinyModel Mistral() {
  const TinySizes sizes;
  Json config = TinyConfig("MistralForCausalLM", "mistral", sizes);
  config.Set("sliding_window", 4);
  return TinyWeights(config, sizes, {}, 4);
}

inline TinyModel Phi3() {
  TinySizes sizes;
  sizes.head_dim = 16;
  sizes.dim = 64;
  Json scaling(JsonObject{{"rope_type", "longrope"}});
  scaling.Set("short_factor", JsonArray{1.0, 1.1, 1.2, 1.3});
  scaling.Set("long_factor", JsonArray{1.5, 2.0, 3.0, 4.5});
  Json config = TinyConfig("Phi3ForCausalLM", "phi3", sizes);
  config.Set("rope_scaling", scaling).Set("partial_rotary_factor", 0.5);
  config.Set("original_max_position_embeddings", 16).Set("sliding_window", 9);
  return TinyWeights(config, sizes, {.fused = true}, 5);
}

inline TinyModel Qwen2() {
  const TinySizes sizes;
  Json config = TinyConfig("Qwen2ForCausalLM", "qwen2", sizes);
  config.Set("tie_word_embeddings", true);
  return TinyWeights(config, sizes, {.bias_qkv = true, .head = false}, 7);
}

inline TinyModel Qwen3() {
  TinySizes sizes;
  sizes.head_dim = 20;
  const Json config = TinyConfig("Qwen3ForCausalLM", "qwen3", sizes);
  return TinyWeights(config, sizes, {.qk_norm = true}, 9);
}

inline TinyModel Gemma2() {
  TinySizes sizes;
  sizes.layers = 2;
  Json config = TinyConfig("Gemma2ForCausalLM", "gemma2", sizes);
  config.Set("attn_logit_softcapping", 2.5).Set("final_logit_softcapping", 4.0);
  config.Set("query_pre_attn_scalar", 20).Set("sliding_window", 6);
  config.Set("hidden_activation", "gelu_pytorch_tanh");
  return TinyWeights(config, sizes, {.gemma = true, .head = false}, 10);
}

inline TinyModel Gemma3() {
  const TinySizes sizes;
  Json config = TinyConfig("Gemma3ForCausalLM", "gemma3_text", sizes);
  config.Set("rope_theta", 50000.0).Set("rope_local_base_freq", 500.0);
  config.Set("query_pre_attn_scalar", 12).Set("sliding_window", 4);
  config.Set("head_dim", sizes.head_dim);
  config.Set("layer_types", JsonArray{"sliding_attention", "full_attention", "sliding_attention"});
  return TinyWeights(config, sizes, {.qk_norm = true, .gemma = true, .head = false}, 11);
}

}  // namespace test_models

struct NamedModel {
  std::string name;
  TinyModel model;
};

inline std::vector<NamedModel> TrainedModels() {
  std::vector<NamedModel> models;
  models.push_back({"llama: grouped heads, untied head", TinyLlama()});
  models.push_back({"llama: biases, a head size of its own, tied embeddings, scaled rope",
                    test_models::LlamaWithBiases()});
  models.push_back({"mistral: every layer slides", test_models::Mistral()});
  models.push_back({"phi3: fused tensors, partial rotation, longrope", test_models::Phi3()});
  models.push_back({"qwen2: biases, half-split rotation", test_models::Qwen2()});
  models.push_back({"qwen3: norms on q and k", test_models::Qwen3()});
  models.push_back(
      {"gemma2: soft caps, four norms, every other layer slides, GELU", test_models::Gemma2()});
  models.push_back({"gemma3: two RoPE bases, norms on q and k", test_models::Gemma3()});
  return models;
}

// The parameters of a model in the order of ParameterLayout.
inline std::vector<float> Parameters(const TinyModel& tiny, ModelSpec* spec) {
  TemporaryFolder folder;
  tiny.Write(folder.path());
  auto checkpoint = Checkpoint::Open(folder.path());
  REQUIRE_MESSAGE(checkpoint.has_value(), (checkpoint ? "" : checkpoint.error().message));
  *spec = checkpoint->spec();
  auto values = LoadParameters(*checkpoint, ParameterLayout(*spec));
  REQUIRE(values.has_value());
  return *std::move(values);
}

// Writes the model with its matrices in `format` and everything else in F32; returns the file's
// path.
inline std::string WriteMatricesIn(DType format, const Checkpoint& model,
                                   const TemporaryFolder& folder) {
  std::vector<GgufTensorDecl> tensors;
  for (const CheckpointTensor& tensor : model.tensors()) {
    const DType type = tensor.shape.rank() == 2 ? format : DType::kF32;
    tensors.push_back({tensor.name, type, tensor.shape});
  }
  const std::string path = folder / "matrices.gguf";
  auto writer = GgufWriter::Create(path, true, model.metadata(), tensors);
  REQUIRE_MESSAGE(writer.has_value(), (writer ? "" : writer.error().message));
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto tensor = model.Load(i);
    REQUIRE(tensor.has_value());
    const size_t count = tensors[i].shape.elements();
    std::vector<float> values(count);
    tensor->view().Decode(0, count, values.data());
    const DTypeInfo& info = Info(tensors[i].dtype);
    std::vector<std::byte> bytes(info.RowBytes(count));
    info.encode(values.data(), nullptr, bytes.data(), count);
    REQUIRE(writer->Write(bytes).has_value());
  }
  REQUIRE(writer->Finish().has_value());
  return path;
}

// Four sequences, one of a single token, with a prompt's token that is not learned.
inline Batch PackedBatch(uint64_t vocab) {
  Batch batch;
  for (const uint32_t length : {11u, 1u, 7u, 5u}) {
    const std::vector<int32_t> tokens = TinyTokens(length, vocab, length);
    AppendSequence(tokens, &batch);
  }
  batch.targets[3] = kNoTarget;
  return batch;
}

}  // namespace edgewise::train
