// Adapters against an independent forward pass of the merged model in double precision; a frozen
// base in its file's format.
#include "train/lora.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "model/arch/tensors.h"
#include "model/reference_forward.h"
#include "tests/test_data.h"
#include "train/network.h"
#include "train/test_models.h"
#include "train/trainer.h"

namespace edgewise::train {
namespace {

constexpr float kScale = 0.25f;

Batch PackedBatch(uint64_t vocab) {
  Batch batch;
  for (const uint32_t length : {9u, 1u, 6u}) {
    AppendSequence(TinyTokens(length, vocab, length), &batch);
  }
  return batch;
}

Checkpoint OpenTiny(const TinyModel& tiny, const TemporaryFolder& folder) {
  tiny.Write(folder.path());
  auto checkpoint = Checkpoint::Open(folder.path());
  REQUIRE_MESSAGE(checkpoint.has_value(), (checkpoint ? "" : checkpoint.error().message));
  return *std::move(checkpoint);
}

LoraLayout LayoutOf(const ModelSpec& spec, const LoraOptions& options) {
  auto layout = LoraLayout::Create(spec, options);
  REQUIRE_MESSAGE(layout.has_value(), (layout ? "" : layout.error().message));
  return *std::move(layout);
}

// Adapters that change something.
std::vector<float> RandomAdapters(const LoraLayout& layout) {
  std::vector<float> values = FirstAdapters(layout, 3);
  Rng rng(4);
  for (float& value : values) value += static_cast<float>(0.1 * rng.Gaussian());
  return values;
}

// The model as Hugging Face keeps it, with the adapter in its matrices.
TinyModel Merged(TinyModel tiny, const ModelSpec& spec, const LoraAdapter& adapter,
                 bool keep_zeros) {
  for (const NeededTensor& needed : NeededTensors(spec)) {
    for (const LoraPair& pair : adapter.pairs) {
      if (pair.weight != needed.name) continue;
      std::vector<float>& values = tiny.tensors.at(needed.hf_name).values;
      const uint64_t heads = needed.permuted_heads, size = heads > 0 ? pair.out / heads : pair.out;
      for (uint64_t row = 0; row < pair.out; ++row) {
        const uint64_t head = row / size, i = row % size;
        const uint64_t hf = heads > 0 ? head * size + i % 2 * (size / 2) + i / 2 : row;
        for (uint64_t column = 0; column < pair.in; ++column) {
          double sum = 0;
          for (uint64_t r = 0; r < pair.rank; ++r) {
            sum += static_cast<double>(pair.b[row * pair.rank + r]) *
                   static_cast<double>(pair.a[r * pair.in + column]);
          }
          float& value = values[hf * pair.in + column];
          if (keep_zeros && value == 0) continue;
          value += static_cast<float>(adapter.alpha / static_cast<double>(pair.rank) * sum);
        }
      }
    }
  }
  return tiny;
}

// The sum of cross-entropies, in double precision.
double ReferenceLoss(const TinyModel& tiny, const Batch& batch, size_t vocab) {
  double sum = 0;
  size_t row = 0;
  for (const uint32_t length : batch.lengths) {
    const auto first = batch.tokens.begin() + static_cast<long>(row);
    const std::vector<double> logits = ReferenceForward(tiny).Run({first, first + length});
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
Outcome Learn(const Checkpoint& model, const NetworkOptions& options, const Batch& batch,
              const std::vector<float>& adapters, int threads = 2, uint64_t seed = 1) {
  ThreadPool pool(threads);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  auto base = CheckpointWeights::Create(model, &pool);
  REQUIRE(base.has_value());
  auto network = Network::Create(model.spec(), ops.get(), options, &*base);
  REQUIRE(network.has_value());
  REQUIRE(network->size() == adapters.size());
  CrossEntropyLoss loss(&pool);
  Outcome outcome{0, std::vector<float>(adapters.size())};
  auto sum = network->Train(batch, adapters.data(), &loss, kScale, seed, outcome.gradients.data());
  REQUIRE_MESSAGE(sum.has_value(), (sum ? "" : sum.error().message));
  outcome.loss = *sum;
  return outcome;
}

// Moves one A or B both ways in a random direction: what that does to the reference's loss must be
// what the gradients say.
void CheckRun(const TinyModel& tiny, const ModelSpec& spec, const NetworkOptions& options,
              const LoraLayout& layout, const Batch& batch, const std::vector<float>& adapters,
              const std::vector<float>& gradients, size_t first, size_t count) {
  constexpr double kStep = 3e-3;
  Rng rng(first + 1);
  std::vector<float> up = adapters, down = adapters;
  for (size_t i = first; i < first + count; ++i) {
    const auto move = static_cast<float>(kStep * rng.Gaussian());
    up[i] += move;
    down[i] -= move;
  }
  const auto loss = [&](const std::vector<float>& values) {
    const LoraAdapter adapter = ToAdapter(layout, options.lora, values);
    return ReferenceLoss(Merged(tiny, spec, adapter, options.keep_zeros), batch, spec.vocab_size);
  };
  double moved = 0, steep = 0, slope = 0;
  for (size_t i = first; i < first + count; ++i) {
    const auto move = static_cast<double>(up[i] - down[i]), g = static_cast<double>(gradients[i]);
    moved += move * move;
    steep += g * g;
    slope += g * move;
  }
  const double expected = static_cast<double>(kScale) * (loss(up) - loss(down));
  const double typical = std::sqrt(moved * steep / static_cast<double>(count));
  CHECK(typical > 0);
  CHECK(std::abs(slope - expected) < 2e-3 * (typical + std::abs(expected)));
}

std::vector<float> Logits(Network* network, const float* weights, const Batch& batch,
                          size_t vocab) {
  REQUIRE(network->Forward(batch, weights).has_value());
  std::vector<uint32_t> rows(batch.size());
  std::iota(rows.begin(), rows.end(), 0u);
  std::vector<float> logits(rows.size() * vocab);
  network->Logits(weights, rows, logits.data());
  return logits;
}

void CheckMergedLogits(const Checkpoint& model, const NetworkOptions& options,
                       const LoraLayout& layout, const std::vector<float>& adapters,
                       const Batch& batch) {
  ThreadPool pool(2);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  auto base = CheckpointWeights::Create(model, &pool);
  REQUIRE(base.has_value());
  auto apart = Network::Create(model.spec(), ops.get(), options, &*base);
  auto whole = Network::Create(model.spec(), ops.get(), {});
  REQUIRE((apart.has_value() && whole.has_value()));
  auto merged = MergeAdapter(model, ToAdapter(layout, options.lora, adapters), options.keep_zeros);
  REQUIRE(merged.has_value());
  const auto weights = LoadParameters(*merged, ParameterLayout(model.spec()));
  const auto before = LoadParameters(model, ParameterLayout(model.spec()));
  REQUIRE((weights.has_value() && before.has_value()));
  const size_t vocab = model.spec().vocab_size;
  const std::vector<float> one = Logits(&*apart, adapters.data(), batch, vocab);
  const std::vector<float> two = Logits(&*whole, weights->data(), batch, vocab);
  const std::vector<float> old = Logits(&*whole, before->data(), batch, vocab);
  double difference = 0, change = 0;
  for (size_t i = 0; i < one.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(one[i] - two[i])));
    change = std::max(change, std::abs(static_cast<double>(one[i] - old[i])));
  }
  CHECK(difference < 1e-4);
  CHECK(change > 0.1);
}

void Check(const TinyModel& tiny, NetworkOptions options = {}) {
  const TemporaryFolder folder;
  const Checkpoint model = OpenTiny(tiny, folder);
  const ModelSpec& spec = model.spec();
  options.lora.rank = 3;
  options.lora.alpha = 5;
  const LoraLayout layout = LayoutOf(spec, options.lora);
  const std::vector<float> adapters = RandomAdapters(layout);
  const Batch batch = PackedBatch(spec.vocab_size);
  const Outcome outcome = Learn(model, options, batch, adapters);
  const TinyModel merged =
      Merged(tiny, spec, ToAdapter(layout, options.lora, adapters), options.keep_zeros);
  CHECK(outcome.loss ==
        doctest::Approx(ReferenceLoss(merged, batch, spec.vocab_size)).epsilon(1e-5));
  for (const ProductLora& product : layout.all()) {
    for (const LoraPart& part : product.parts) {
      CAPTURE(part.weight);
      CheckRun(tiny, spec, options, layout, batch, adapters, outcome.gradients, part.a,
               part.columns * 3);
      CheckRun(tiny, spec, options, layout, batch, adapters, outcome.gradients, part.b,
               part.rows * 3);
    }
  }
  CheckMergedLogits(model, options, layout, adapters, batch);
}

TinySizes SmallSizes() {
  TinySizes sizes;
  sizes.layers = 2;
  return sizes;
}

TEST_CASE("gradients of adapters: llama, q and k with rows in pairs") {
  const TinySizes sizes = SmallSizes();
  Check(TinyWeights(TinyConfig("LlamaForCausalLM", "llama", sizes), sizes, {}, 1));
}

TEST_CASE("gradients of adapters: phi3, whose file fuses q, k, v and gate, up") {
  TinySizes sizes = SmallSizes();
  sizes.head_dim = 16;
  sizes.dim = 64;
  Check(TinyWeights(TinyConfig("Phi3ForCausalLM", "phi3", sizes), sizes, {.fused = true}, 5));
}

TEST_CASE("gradients of adapters: gemma2, tied embeddings, four norms, soft caps") {
  const TinySizes sizes = SmallSizes();
  Json config = TinyConfig("Gemma2ForCausalLM", "gemma2", sizes);
  config.Set("attn_logit_softcapping", 2.5).Set("final_logit_softcapping", 4.0);
  config.Set("query_pre_attn_scalar", 20).Set("sliding_window", 6);
  config.Set("hidden_activation", "gelu_pytorch_tanh");
  Check(TinyWeights(config, sizes, {.gemma = true, .head = false}, 10));
}

TEST_CASE("gradients of adapters: some matrices only, biases, norms on q and k") {
  const TinySizes sizes = SmallSizes();
  NetworkOptions options;
  options.lora.targets = {"k", "v", "up"};
  Check(TinyWeights(TinyConfig("Qwen3ForCausalLM", "qwen3", sizes), sizes, {.qk_norm = true}, 9),
        options);
}

TEST_CASE("gradients of adapters that keep a pruned model's zeros") {
  const TinySizes sizes = SmallSizes();
  TinyModel tiny = TinyWeights(TinyConfig("LlamaForCausalLM", "llama", sizes), sizes, {}, 1);
  for (auto& [name, tensor] : tiny.tensors) {
    if (tensor.shape.size() != 2) continue;
    for (size_t i = 0; i < tensor.values.size(); ++i) {
      if (i % 4 < 2) tensor.values[i] = 0;
    }
  }
  NetworkOptions options;
  options.keep_zeros = true;
  Check(tiny, options);
  options.lora.targets = {"q", "down"};
  Check(tiny, options);
}

TEST_CASE("first adapters change nothing; threads and recomputation change no bit") {
  const TemporaryFolder folder;
  const Checkpoint model = OpenTiny(TinyLlama(), folder);
  NetworkOptions options;
  options.lora = {.rank = 4, .alpha = 8, .dropout = 0.3};
  const LoraLayout layout = LayoutOf(model.spec(), options.lora);
  const std::vector<float> first = FirstAdapters(layout, 1), random = RandomAdapters(layout);
  const Batch batch = PackedBatch(model.spec().vocab_size);
  CHECK(Learn(model, options, batch, first).loss ==
        doctest::Approx(ReferenceLoss(TinyLlama(), batch, model.spec().vocab_size)).epsilon(1e-5));
  const double bound = 1 / std::sqrt(48.0);
  const LoraPart& q = layout.of(0, Product::kQkv).parts[0];
  const float* a = first.data() + q.a;
  CHECK(*std::max_element(a, a + 4 * 48) <= bound);
  CHECK(*std::max_element(a, a + 4 * 48) > 0.9 * bound);
  CHECK(*std::min_element(a, a + 4 * 48) < -0.9 * bound);

  const Outcome one = Learn(model, options, batch, random, 1, 5);
  for (const bool recompute : {false, true}) {
    options.recompute = recompute;
    const Outcome same = Learn(model, options, batch, random, 3, 5);
    CHECK(same.loss == one.loss);
    CHECK(same.gradients == one.gradients);
  }
  CHECK(Learn(model, options, batch, random, 2, 6).loss != one.loss);

  // A step along the gradient with the same inputs dropped: the loss changes as it says.
  std::vector<float> up = random, down = random;
  const double slope =
      std::inner_product(one.gradients.begin(), one.gradients.end(), one.gradients.begin(), 0.0);
  const auto step = static_cast<float>(3e-3 / std::sqrt(slope));
  for (size_t i = 0; i < random.size(); ++i) {
    up[i] += step * one.gradients[i];
    down[i] -= step * one.gradients[i];
  }
  const double change =
      Learn(model, options, batch, up, 1, 5).loss - Learn(model, options, batch, down, 1, 5).loss;
  CHECK(kScale * change == doctest::Approx(2 * step * slope).epsilon(1e-2));
}

TinySizes BlockSizes() {
  return {
      .dim = 64, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 16, .ffn = 96, .vocab = 37};
}

TEST_CASE("a base in Q4_0 gives the values of its file, layer by layer") {
  const TinySizes sizes = BlockSizes();
  for (const bool tied : {false, true}) {
    const TemporaryFolder folder;
    Json config = TinyConfig("Qwen3ForCausalLM", "qwen3", sizes);
    config.Set("tie_word_embeddings", tied);
    const Checkpoint source = OpenTiny(
        TinyWeights(config, sizes, {.bias_qkv = false, .qk_norm = true, .head = !tied}, 3), folder);
    auto model = Checkpoint::Open(WriteMatricesIn(DType::kQ4_0, source, folder));
    REQUIRE_MESSAGE(model.has_value(), (model ? "" : model.error().message));
    const ParameterLayout layout(model->spec());
    const auto values = LoadParameters(*model, layout);
    REQUIRE(values.has_value());
    ThreadPool pool(2);
    auto base = CheckpointWeights::Create(*model, &pool);
    REQUIRE(base.has_value());
    FloatWeights expected(layout, values->data());
    const auto same = [](const float* a, const float* b, size_t count) {
      return std::equal(a, a + count, b);
    };
    for (const uint32_t l : {1u, 0u, 0u}) {
      const LayerWeights ours = *base->Layer(l), theirs = *expected.Layer(l);
      CHECK(same(ours.qkv, theirs.qkv, 128 * 64));
      CHECK(same(ours.output, theirs.output, 64 * 64));
      CHECK(same(ours.gate_up, theirs.gate_up, 192 * 64));
      CHECK(same(ours.down, theirs.down, 64 * 96));
      CHECK(same(ours.attention_norm, theirs.attention_norm, 64));
      CHECK(same(ours.feed_forward_norm, theirs.feed_forward_norm, 64));
      CHECK(same(ours.q_norm, theirs.q_norm, 16));
      CHECK(same(ours.k_norm, theirs.k_norm, 16));
      CHECK(ours.qkv_bias == nullptr);
    }
    CHECK(same(base->OutputNorm(), expected.OutputNorm(), 64));
    const std::vector<int32_t> tokens = {36, 0, 7, 36};
    const TokenRows ours = base->Embedding(tokens), theirs = expected.Embedding(tokens);
    for (size_t i = 0; i < tokens.size(); ++i) {
      CHECK(same(ours.table + ours.ids[i] * 64, theirs.table + theirs.ids[i] * 64, 64));
    }
    const OutputRows rows = base->Output(5);
    CHECK(rows.count == 32);
    CHECK(same(rows.rows, expected.Output(5).rows, 32 * 64));
  }
}

struct Quiet final : TrainingObserver, Progress {
  std::vector<StepReport> reports;
  Status OnStep(const StepReport& report, const TrainerState&) override {
    reports.push_back(report);
    return Ok{};
  }
  void Update(std::string_view, uint64_t, uint64_t) override {}
  bool Cancelled() const override { return false; }
};

TEST_CASE("adapters on a base in Q4_0 learn to count, and the base stays what it is") {
  const TinySizes sizes = BlockSizes();
  const TemporaryFolder folder;
  const Checkpoint source =
      OpenTiny(TinyWeights(TinyConfig("LlamaForCausalLM", "llama", sizes), sizes, {}, 3), folder);
  const auto model = Checkpoint::Open(WriteMatricesIn(DType::kQ4_0, source, folder));
  REQUIRE(model.has_value());
  Corpus corpus;
  for (int32_t first = 0; first < 37; ++first) {
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < 12; ++i) tokens.push_back((first + i) % 37);
    corpus.Append(tokens);
  }
  TrainerOptions options;
  options.schedule = {.peak = 0.01, .steps = 60, .warmup = 5};
  options.batch = {.tokens = 200, .sequence = 16, .seed = 1};
  options.network.lora = {.rank = 8, .alpha = 16};
  options.weight_decay = 0;
  const LoraLayout layout = LayoutOf(model->spec(), options.network.lora);
  ThreadPool pool(2);
  auto base = CheckpointWeights::Create(*model, &pool);
  REQUIRE(base.has_value());
  const auto before = LoadParameters(*model, ParameterLayout(model->spec()));
  TrainerState state;
  state.weights = FirstAdapters(layout, 1);
  CrossEntropyLoss loss(&pool);
  Quiet quiet;
  const Status status = RunTraining(model->spec(), options, corpus, &corpus, &loss, &pool, &quiet,
                                    &quiet, &state, &*base);
  REQUIRE_MESSAGE(status.has_value(), (status ? "" : status.error().message));
  MESSAGE("loss " << quiet.reports.front().loss << " -> " << quiet.reports.back().loss);
  CHECK(quiet.reports.front().loss > 3);
  CHECK(quiet.reports.back().loss < 0.5);
  CHECK(state.mean.size() == layout.size());
  const auto after = LoadParameters(*model, ParameterLayout(model->spec()));
  CHECK(*before == *after);
}

TEST_CASE("refused adapters") {
  const TemporaryFolder folder;
  const Checkpoint model = OpenTiny(TinyLlama(), folder);
  const auto refused = [&](const LoraOptions& options, const std::string& part) {
    CAPTURE(part);
    const auto layout = LoraLayout::Create(model.spec(), options);
    REQUIRE(!layout.has_value());
    CHECK(layout.error().message.find(part) != std::string::npos);
  };
  refused({.rank = 1u << 20}, "rank");
  refused({.rank = 4, .alpha = 0}, "alpha");
  refused({.rank = 4, .alpha = std::nan("")}, "alpha");
  refused({.rank = 4, .dropout = 1}, "dropout");
  refused({.rank = 4, .targets = {"w1"}}, "gate_up");
  refused({.rank = 4, .targets = {"qkv"}}, "its targets are q, k, v, o, gate, up, down");
  LoraAdapter other;
  other.alpha = 1;
  other.pairs.push_back(
      {"blk.9.attn_q.weight", 1, 48, 48, std::vector<float>(48), std::vector<float>(48)});
  CHECK(MergeAdapter(model, other).error().message.find("does not have") != std::string::npos);
  other.pairs[0].weight = "blk.0.attn_k.weight";
  CHECK(MergeAdapter(model, other).error().message.find("[24, 48]") != std::string::npos);
}

}  // namespace
}  // namespace edgewise::train
