// The network against the runtime's logits and, for its gradients, against differences of an
// independent forward pass in double precision.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "model/reference_forward.h"
#include "model/tiny_model.h"
#include "tests/test_data.h"
#include "train/network.h"
#include "train/test_batch.h"

namespace edgewise::train {
namespace {

constexpr uint32_t kLengths[] = {11, 1, 7, 5};
constexpr float kScale = 0.25f;

Batch PackedBatch(uint64_t vocab) {
  Batch batch;
  for (const uint32_t length : kLengths) {
    const std::vector<int32_t> tokens = TinyTokens(length, vocab, length);
    AppendSequence(tokens, &batch);
  }
  batch.targets[3] = kNoTarget;  // as a prompt's
  return batch;
}

std::vector<float> Parameters(const TinyModel& tiny, ModelSpec* spec) {
  TemporaryFolder folder;
  tiny.Write(folder.path());
  auto checkpoint = Checkpoint::Open(folder.path());
  REQUIRE_MESSAGE(checkpoint.has_value(), (checkpoint ? "" : checkpoint.error().message));
  *spec = checkpoint->spec();
  auto values = LoadParameters(*checkpoint, ParameterLayout(*spec));
  REQUIRE(values.has_value());
  return *std::move(values);
}

// The sum of cross-entropies, in double precision.
double ReferenceLoss(const TinyModel& tiny, const Batch& batch) {
  const size_t vocab = TinySizes().vocab;
  double sum = 0;
  size_t row = 0;
  for (const uint32_t length : batch.lengths) {
    const std::vector<int32_t> tokens(batch.tokens.begin() + static_cast<long>(row),
                                      batch.tokens.begin() + static_cast<long>(row + length));
    const std::vector<double> logits = ReferenceForward(tiny).Run(tokens);
    for (size_t i = 0; i < length; ++i, ++row) {
      if (batch.targets[row] == kNoTarget) continue;
      const double* z = logits.data() + i * vocab;
      double total = 0;
      for (size_t v = 0; v < vocab; ++v) total += std::exp(z[v]);
      sum += std::log(total) - z[batch.targets[row]];
    }
  }
  return sum;
}

struct Outcome {
  double loss;
  std::vector<float> gradients;
};
Outcome RunTraining(const ModelSpec& spec, const std::vector<float>& weights, const Batch& batch,
                    const NetworkOptions& options, int threads, uint64_t seed = 1) {
  ThreadPool pool(threads);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  auto network = Network::Create(spec, ops.get(), options);
  REQUIRE(network.has_value());
  CrossEntropyLoss loss(&pool);
  Outcome outcome{0, std::vector<float>(weights.size())};
  auto sum = network->Train(batch, weights.data(), &loss, kScale, seed, outcome.gradients.data());
  REQUIRE_MESSAGE(sum.has_value(), (sum ? "" : sum.error().message));
  outcome.loss = *sum;
  return outcome;
}

double Dot(const std::vector<float>& a, const std::vector<float>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// Moves one tensor of the model both ways in a random direction: what that does to the reference's
// loss must be what the gradients say.
void CheckTensor(const TinyModel& tiny, const std::string& name, const Batch& batch,
                 const std::vector<float>& gradients) {
  CAPTURE(name);
  constexpr double kStep = 1e-3;
  Rng rng(name.size() * 31 + static_cast<uint64_t>(name.back()));
  TinyModel up = tiny, down = tiny;
  const std::vector<float>& values = tiny.tensors.at(name).values;
  const double size =
      std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 1e-6) /
                static_cast<double>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto move = static_cast<float>(kStep * size * rng.Gaussian());
    up.tensors[name].values[i] += move;
    down.tensors[name].values[i] -= move;
  }
  ModelSpec spec;
  std::vector<float> difference = Parameters(up, &spec);
  const std::vector<float> low = Parameters(down, &spec);
  double moved = 0, steep = 0, count = 0;
  for (size_t i = 0; i < low.size(); ++i) {
    difference[i] -= low[i];
    if (difference[i] == 0) continue;
    moved += static_cast<double>(difference[i] * difference[i]);
    steep += static_cast<double>(gradients[i] * gradients[i]);
    ++count;
  }
  REQUIRE(count > 0);
  const double expected = kScale * (ReferenceLoss(up, batch) - ReferenceLoss(down, batch));
  const double typical = std::sqrt(moved * steep / count);
  CHECK(typical > 0);
  CHECK(std::abs(Dot(gradients, difference) - expected) < 1e-3 * (typical + std::abs(expected)));
}

ModelSpec CheckGradients(const TinyModel& tiny) {
  ModelSpec spec;
  const std::vector<float> weights = Parameters(tiny, &spec);
  const Batch batch = PackedBatch(spec.vocab_size);
  const Outcome outcome = RunTraining(spec, weights, batch, {}, 2);
  CHECK(outcome.loss == doctest::Approx(ReferenceLoss(tiny, batch)).epsilon(1e-5));
  for (const auto& [name, tensor] : tiny.tensors) CheckTensor(tiny, name, batch, outcome.gradients);

  const Outcome again = RunTraining(spec, weights, batch, {.recompute = true}, 3);
  CHECK(again.loss == outcome.loss);
  CHECK(again.gradients == outcome.gradients);
  return spec;
}

// The runtime's logits for each sequence of the batch.
void CheckLogits(const TinyModel& tiny) {
  TemporaryFolder folder;
  tiny.Write(folder.path());
  const auto model = LoadTestModel(folder.path());
  ModelSpec spec;
  const std::vector<float> weights = Parameters(tiny, &spec);
  const Batch batch = PackedBatch(spec.vocab_size);
  ThreadPool pool(2);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  auto network = Network::Create(spec, ops.get(), {});
  REQUIRE(network.has_value());
  REQUIRE(network->Forward(batch, weights.data()).has_value());
  std::vector<uint32_t> rows(batch.size());
  std::iota(rows.begin(), rows.end(), 0u);
  std::vector<float> logits(rows.size() * spec.vocab_size);
  network->Logits(weights.data(), rows, logits.data());
  size_t row = 0;
  for (const uint32_t length : batch.lengths) {
    ForwardPass pass(*model, &pool);
    auto cache = KvCache::Create(spec, 16, kernels::KvFormat::kF32);
    REQUIRE(cache.has_value());
    std::vector<float> expected(length * spec.vocab_size);
    REQUIRE(pass.Run({batch.tokens.data() + row, length}, &*cache, 0, expected).has_value());
    for (size_t i = 0; i < expected.size(); ++i) {
      REQUIRE(std::abs(expected[i] - logits[row * spec.vocab_size + i]) < 1e-4f);
    }
    row += length;
  }
}

void Check(const TinyModel& tiny) {
  CheckLogits(tiny);
  CheckGradients(tiny);
}

TEST_CASE("llama: grouped heads, untied head") { Check(TinyLlama()); }

TEST_CASE("llama: biases, a head size of its own, tied embeddings, scaled rope") {
  TinySizes sizes;
  sizes.head_dim = 10;
  sizes.kv_heads = 4;
  Json scaling(JsonObject{{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0}});
  scaling.Set("high_freq_factor", 4.0).Set("original_max_position_embeddings", 32);
  Json config = TinyConfig("LlamaForCausalLM", "llama", sizes);
  config.Set("attention_bias", true).Set("tie_word_embeddings", true);
  config.Set("rope_scaling", scaling);
  Check(TinyWeights(config, sizes, {.bias_qkv = true, .bias_output = true, .head = false}, 2));
}

TEST_CASE("mistral: every layer slides") {
  const TinySizes sizes;
  Json config = TinyConfig("MistralForCausalLM", "mistral", sizes);
  config.Set("sliding_window", 4);
  Check(TinyWeights(config, sizes, {}, 4));
}

TEST_CASE("phi3: fused tensors, partial rotation, longrope") {
  TinySizes sizes;
  sizes.head_dim = 16;
  sizes.dim = 64;
  Json scaling(JsonObject{{"rope_type", "longrope"}});
  scaling.Set("short_factor", JsonArray{1.0, 1.1, 1.2, 1.3});
  scaling.Set("long_factor", JsonArray{1.5, 2.0, 3.0, 4.5});
  Json config = TinyConfig("Phi3ForCausalLM", "phi3", sizes);
  config.Set("rope_scaling", scaling).Set("partial_rotary_factor", 0.5);
  config.Set("original_max_position_embeddings", 16).Set("sliding_window", 9);
  Check(TinyWeights(config, sizes, {.fused = true}, 5));
}

TEST_CASE("qwen2: biases, half-split rotation") {
  const TinySizes sizes;
  Json config = TinyConfig("Qwen2ForCausalLM", "qwen2", sizes);
  config.Set("tie_word_embeddings", true);
  Check(TinyWeights(config, sizes, {.bias_qkv = true, .head = false}, 7));
}

TEST_CASE("qwen3: norms on q and k") {
  TinySizes sizes;
  sizes.head_dim = 20;
  const Json config = TinyConfig("Qwen3ForCausalLM", "qwen3", sizes);
  Check(TinyWeights(config, sizes, {.qk_norm = true}, 9));
}

TEST_CASE("gemma2: soft caps, four norms, every other layer slides, GELU") {
  TinySizes sizes;
  sizes.layers = 2;
  Json config = TinyConfig("Gemma2ForCausalLM", "gemma2", sizes);
  config.Set("attn_logit_softcapping", 2.5).Set("final_logit_softcapping", 4.0);
  config.Set("query_pre_attn_scalar", 20).Set("sliding_window", 6);
  config.Set("hidden_activation", "gelu_pytorch_tanh");
  Check(TinyWeights(config, sizes, {.gemma = true, .head = false}, 10));
}

TEST_CASE("gemma3: two RoPE bases, norms on q and k") {
  TinySizes sizes;
  Json config = TinyConfig("Gemma3ForCausalLM", "gemma3_text", sizes);
  config.Set("rope_theta", 50000.0).Set("rope_local_base_freq", 500.0);
  config.Set("query_pre_attn_scalar", 12).Set("sliding_window", 4);
  config.Set("head_dim", sizes.head_dim);
  config.Set("layer_types", JsonArray{"sliding_attention", "full_attention", "sliding_attention"});
  Check(TinyWeights(config, sizes, {.qk_norm = true, .gemma = true, .head = false}, 11));
}

TEST_CASE("threads change no bit; dropout is the same forward, backward and recomputed") {
  ModelSpec spec;
  const std::vector<float> weights = Parameters(TinyLlama(), &spec);
  const Batch batch = PackedBatch(spec.vocab_size);
  const NetworkOptions dropout = {.dropout = 0.3f};
  const Outcome one = RunTraining(spec, weights, batch, dropout, 1, 5);
  for (const bool recompute : {false, true}) {
    const NetworkOptions options = {.recompute = recompute, .dropout = 0.3f};
    const Outcome same = RunTraining(spec, weights, batch, options, 3, 5);
    CHECK(same.loss == one.loss);
    CHECK(same.gradients == one.gradients);
  }
  CHECK(RunTraining(spec, weights, batch, dropout, 1, 6).loss != one.loss);
  CHECK(RunTraining(spec, weights, batch, {}, 1).loss != one.loss);

  // A step along the gradient with the same values dropped: the loss changes as it says.
  std::vector<float> up = weights, down = weights;
  const double slope = Dot(one.gradients, one.gradients);
  const auto step = static_cast<float>(1e-3 / std::sqrt(slope));
  for (size_t i = 0; i < weights.size(); ++i) {
    up[i] += step * one.gradients[i];
    down[i] -= step * one.gradients[i];
  }
  const double change = RunTraining(spec, up, batch, dropout, 1, 5).loss -
                        RunTraining(spec, down, batch, dropout, 1, 5).loss;
  CHECK(kScale * change == doctest::Approx(2 * step * slope).epsilon(1e-2));
}

TEST_CASE("evaluation gives the loss of training without dropout") {
  ModelSpec spec;
  const std::vector<float> weights = Parameters(TinyLlama(), &spec);
  const Batch batch = PackedBatch(spec.vocab_size);
  ThreadPool pool(2);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  auto network = Network::Create(spec, ops.get(), {.dropout = 0.5f});
  REQUIRE(network.has_value());
  CrossEntropyLoss loss(&pool);
  const auto sum = network->Evaluate(batch, weights.data(), &loss);
  REQUIRE(sum.has_value());
  CHECK(*sum == RunTraining(spec, weights, batch, {}, 1).loss);
}

TEST_CASE("refused batches") {
  ModelSpec spec;
  const std::vector<float> weights = Parameters(TinyLlama(), &spec);
  ThreadPool pool(1);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  auto network = Network::Create(spec, ops.get(), {});
  REQUIRE(network.has_value());
  CrossEntropyLoss loss(&pool);
  const Batch good = PackedBatch(spec.vocab_size);
  Batch empty, uneven = good, outside = good, target = good;
  uneven.lengths.back() += 1;
  outside.tokens[2] = static_cast<int32_t>(spec.vocab_size);
  target.targets[2] = -2;
  for (const Batch* batch : {&empty, &uneven, &outside, &target}) {
    const auto sum = network->Evaluate(*batch, weights.data(), &loss);
    REQUIRE(!sum.has_value());
    CHECK(sum.error().code == Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace edgewise::train
