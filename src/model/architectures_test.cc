// Every architecture against an independent forward pass in double precision, and through a GGUF
// written from the checkpoint.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "model/model.h"
#include "model/reference_forward.h"
#include "model/tiny_model.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

std::vector<float> Logits(const Model& model, const std::vector<int32_t>& tokens, uint32_t capacity,
                          uint32_t max_batch) {
  ThreadPool pool(2);
  ForwardPass pass(model, &pool, max_batch);
  auto cache = KvCache::Create(model.spec(), capacity, kernels::KvFormat::kF32);
  REQUIRE(cache.has_value());
  std::vector<float> logits(tokens.size() * model.spec().vocab_size);
  const Status status = pass.Run(tokens, &*cache, 0, logits);
  REQUIRE_MESSAGE(status.has_value(), (status ? "" : status.error().message));
  CHECK(cache->size() == tokens.size());
  return logits;
}

void WriteGguf(const Checkpoint& checkpoint, const std::string& path) {
  std::vector<GgufTensorDecl> decls;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    decls.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  auto writer = GgufWriter::Create(path, false, checkpoint.metadata(), decls);
  REQUIRE_MESSAGE(writer.has_value(), (writer ? "" : writer.error().message));
  for (size_t i = 0; i < decls.size(); ++i) {
    auto tensor = checkpoint.Load(i);
    REQUIRE(tensor.has_value());
    CHECK(tensor->view().dtype == decls[i].dtype);
    CHECK(tensor->view().shape == decls[i].shape);
    REQUIRE(writer->Write(tensor->view().as_bytes()).has_value());
  }
  const Status done = writer->Finish();
  REQUIRE_MESSAGE(done.has_value(), (done ? "" : done.error().message));
}

// What the tensors say instead of the keys is written otherwise in a GGUF; the rest must survive.
void CheckSameSpec(ModelSpec from_folder, const ModelSpec& from_gguf) {
  if (from_folder.rope.scaling == RopeScalingKind::kLlama3) {
    from_folder.rope.scaling = RopeScalingKind::kNone;
    from_folder.rope.factor = from_gguf.rope.factor;
    from_folder.rope.original_context = from_gguf.rope.original_context;
  }
  CHECK(from_folder == from_gguf);
}

// `tokens` run in one block, token by token, and from a GGUF copy; returns the model's spec.
ModelSpec CheckModel(const TinyModel& tiny, size_t count = 24, uint32_t capacity = 24) {
  TemporaryFolder folder;
  tiny.Write(folder.path());
  const auto model = LoadTestModel(folder.path());
  const uint64_t vocab = model->spec().vocab_size;
  const std::vector<int32_t> tokens = TinyTokens(count, vocab);
  const std::vector<double> expected = ReferenceForward(tiny).Run(tokens);
  const std::vector<float> logits = Logits(*model, tokens, capacity, 512);
  REQUIRE(expected.size() == logits.size());
  double worst = 0, largest = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    worst = std::max(worst, std::abs(expected[i] - static_cast<double>(logits[i])));
    largest = std::max(largest, std::abs(expected[i]));
  }
  CHECK(largest > 0.5);
  CHECK(worst < 1e-5 * largest);

  const std::vector<float> single = Logits(*model, tokens, capacity, 1);
  for (size_t i = 0; i < logits.size(); ++i) REQUIRE(std::abs(single[i] - logits[i]) < 1e-4f);

  const std::string path = folder / "copy.gguf";
  WriteGguf(model->checkpoint(), path);
  const auto copy = LoadTestModel(path);
  CheckSameSpec(model->spec(), copy->spec());
  CHECK(Logits(*copy, tokens, capacity, 512) == logits);
  return model->spec();
}

Json Scaling(const char* type) { return JsonObject{{"rope_type", type}}; }

TEST_CASE("llama: grouped heads, untied head") {
  const ModelSpec spec = CheckModel(TinyLlama());
  CHECK(spec.architecture == "llama");
  CHECK(spec.rope.kind == RopeKind::kInterleaved);
  CHECK_FALSE(spec.tied_embeddings);
}

TEST_CASE("llama: biases, a head size of its own, tied embeddings") {
  TinySizes sizes;
  sizes.head_dim = 10;
  sizes.kv_heads = 4;
  Json config = TinyConfig("LlamaForCausalLM", "llama", sizes);
  config.Set("attention_bias", true).Set("tie_word_embeddings", true);
  const ModelSpec spec = CheckModel(
      TinyWeights(config, sizes, {.bias_qkv = true, .bias_output = true, .head = false}, 2));
  CHECK(spec.qkv_bias);
  CHECK(spec.output_bias);
  CHECK(spec.tied_embeddings);
}

TEST_CASE("llama: llama3, linear and yarn scaling") {
  const TinySizes sizes;
  Json llama3 = Scaling("llama3");
  llama3.Set("factor", 8.0).Set("low_freq_factor", 1.0).Set("high_freq_factor", 4.0);
  llama3.Set("original_max_position_embeddings", 32);
  Json linear = Scaling("linear");
  linear.Set("factor", 4.0);
  Json yarn = Scaling("yarn");
  yarn.Set("factor", 4.0).Set("original_max_position_embeddings", 16);
  yarn.Set("beta_fast", 2.0).Set("beta_slow", 0.25);
  for (const Json& scaling : {llama3, linear, yarn}) {
    Json config = TinyConfig("LlamaForCausalLM", "llama", sizes);
    config.Set("rope_scaling", scaling);
    const ModelSpec spec = CheckModel(TinyWeights(config, sizes, {}, 3));
    CHECK(spec.rope.scaling != RopeScalingKind::kNone);
    CHECK(spec.rope.frequency_factors.empty() == (spec.rope.scaling != RopeScalingKind::kLlama3));
  }
}

TEST_CASE("mistral: every layer slides") {
  const TinySizes sizes;
  Json config = TinyConfig("MistralForCausalLM", "mistral", sizes);
  config.Set("sliding_window", 5);
  const ModelSpec spec = CheckModel(TinyWeights(config, sizes, {}, 4), 40, 64);
  CHECK(spec.architecture == "llama");
  CHECK(spec.sliding_window == 5);
  CHECK(spec.LayerSlides(2));
}

TEST_CASE("phi3: fused tensors, partial rotation, longrope both ways, sliding window") {
  TinySizes sizes;
  sizes.head_dim = 16;
  sizes.dim = 64;
  Json scaling = Scaling("longrope");
  scaling.Set("short_factor", JsonArray{1.0, 1.1, 1.2, 1.3});
  scaling.Set("long_factor", JsonArray{1.5, 2.0, 3.0, 4.5});
  Json config = TinyConfig("Phi3ForCausalLM", "phi3", sizes);
  config.Set("rope_scaling", scaling).Set("partial_rotary_factor", 0.5);
  config.Set("original_max_position_embeddings", 16).Set("sliding_window", 9);
  const TinyModel tiny = TinyWeights(config, sizes, {.fused = true}, 5);
  const ModelSpec spec = CheckModel(tiny, 14, 16);
  CHECK(spec.rope.rotary_dim == 8);
  CHECK(spec.fused_qkv);
  CHECK(spec.fused_gate_up);
  CheckModel(tiny, 24, 64);
}

TEST_CASE("phi3: no scaling, tied embeddings") {
  TinySizes sizes;
  Json config = TinyConfig("Phi3ForCausalLM", "phi3", sizes);
  config.Set("tie_word_embeddings", true);
  const ModelSpec spec = CheckModel(TinyWeights(config, sizes, {.fused = true, .head = false}, 6));
  CHECK(spec.sliding_window == 0);
}

TEST_CASE("qwen2: biases and yarn") {
  const TinySizes sizes;
  Json scaling = Scaling("yarn");
  scaling.Set("factor", 4.0).Set("original_max_position_embeddings", 128);
  Json config = TinyConfig("Qwen2ForCausalLM", "qwen2", sizes);
  config.Set("rope_scaling", scaling).Set("tie_word_embeddings", true);
  const ModelSpec spec =
      CheckModel(TinyWeights(config, sizes, {.bias_qkv = true, .head = false}, 7));
  CHECK(spec.rope.kind == RopeKind::kNeox);
  CHECK(spec.qkv_bias);
  CHECK_FALSE(spec.output_bias);
  CHECK(spec.rope.attention_factor == doctest::Approx(1.138629));
}

TEST_CASE("qwen2: a window on all layers") {
  const TinySizes sizes;
  Json config = TinyConfig("Qwen2ForCausalLM", "qwen2", sizes);
  config.Set("use_sliding_window", true).Set("sliding_window", 6).Set("max_window_layers", 0);
  CHECK(CheckModel(TinyWeights(config, sizes, {.bias_qkv = true}, 8)).sliding_window == 6);
}

TEST_CASE("qwen3: norms on q and k") {
  TinySizes sizes;
  sizes.head_dim = 20;
  Json config = TinyConfig("Qwen3ForCausalLM", "qwen3", sizes);
  const ModelSpec spec = CheckModel(TinyWeights(config, sizes, {.qk_norm = true}, 9));
  CHECK(spec.qk_norm);
  CHECK(spec.head_dim == 20);
}

TEST_CASE("gemma2: soft caps, four norms, every other layer slides") {
  TinySizes sizes;
  sizes.layers = 4;
  Json config = TinyConfig("Gemma2ForCausalLM", "gemma2", sizes);
  config.Set("attn_logit_softcapping", 2.5).Set("final_logit_softcapping", 4.0);
  config.Set("query_pre_attn_scalar", 20).Set("sliding_window", 6);
  config.Set("hidden_activation", "gelu_pytorch_tanh");
  const ModelSpec spec = CheckModel(TinyWeights(config, sizes, {.gemma = true, .head = false}, 10));
  CHECK(spec.LayerSlides(0));
  CHECK_FALSE(spec.LayerSlides(1));
  CHECK(spec.post_norms);
}

TEST_CASE("gemma3: two RoPE bases, scaling of full layers only, layer types") {
  TinySizes sizes;
  Json config = TinyConfig("Gemma3ForCausalLM", "gemma3_text", sizes);
  Json scaling = Scaling("linear");
  scaling.Set("factor", 8.0);
  config.Set("rope_scaling", scaling).Set("rope_theta", 50000.0);
  config.Set("rope_local_base_freq", 500.0).Set("query_pre_attn_scalar", 12);
  config.Set("sliding_window", 7).Set("head_dim", sizes.head_dim);
  config.Set("layer_types", JsonArray{"sliding_attention", "full_attention", "sliding_attention"});
  const TinyParts parts = {.qk_norm = true, .gemma = true, .head = false};
  const ModelSpec spec = CheckModel(TinyWeights(config, sizes, parts, 11));
  CHECK(spec.sliding_period == 2);
  CHECK(spec.local_rope_base == 500.0f);
}

TEST_CASE("gemma3: RoPE parameters by layer type, period of six") {
  TinySizes sizes;
  sizes.layers = 7;
  Json config = TinyConfig("Gemma3ForCausalLM", "gemma3_text", sizes);
  config.Set(
      "rope_parameters",
      JsonObject{
          {"full_attention", JsonObject{{"rope_type", "default"}, {"rope_theta", 1000000.0}}},
          {"sliding_attention", JsonObject{{"rope_type", "default"}, {"rope_theta", 10000.0}}}});
  config.Set("sliding_window", 4).Set("final_logit_softcapping", 9.0);
  const TinyParts parts = {.qk_norm = true, .gemma = true, .head = false};
  const ModelSpec spec = CheckModel(TinyWeights(config, sizes, parts, 12));
  CHECK(spec.sliding_period == 6);
  CHECK(spec.rope.base == 1000000.0f);
  CHECK_FALSE(spec.LayerSlides(5));
  CHECK(spec.LayerSlides(6));
}

}  // namespace
}  // namespace edgewise
