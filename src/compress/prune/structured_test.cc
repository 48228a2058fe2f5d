// Structured pruning of tiny models: it finds what does nothing, and makes up for what does.
#include "compress/prune/structured.h"

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

#include "compress/prune/unit_score.h"
#include "compress/quantize/equivalence.h"

namespace edgewise {
namespace {

struct Pruned {
  Checkpoint model;  // with the matrices that were repaired
  StructuredModel result;
};

Pruned Prune(const Checkpoint& model, const StructureOptions& options, int threads = 2) {
  const auto plan = PlanStructure(model.spec(), options.request);
  REQUIRE_MESSAGE(plan, (plan ? "" : plan.error().message));
  TokenSequences sequences;
  if (NeedsText(options)) {
    for (uint64_t seed = 1; seed < 12; ++seed) {
      sequences.push_back(TinyTokens(20 + 3 * seed, model.spec().vocab_size, seed));
    }
  }
  std::map<std::string, std::vector<float>> repaired;
  ThreadPool pool(threads);
  NoProgress silent;
  auto result = PruneStructure(
      model, options, *plan, std::move(sequences), &pool, &silent,
      [&](const std::string& name, std::span<const float> values) {
        CHECK(repaired.emplace(name, std::vector(values.begin(), values.end())).second);
        return Status(Ok{});
      });
  REQUIRE_MESSAGE(result, (result ? "" : result.error().message));
  std::unordered_map<size_t, TensorChange> changes;
  for (auto& [name, values] : repaired) {
    const size_t index = *result->model.Find(name);
    REQUIRE(result->model.tensors()[index].shape.elements() == values.size());
    changes.emplace(index, [values](std::span<float> to) {
      std::copy(values.begin(), values.end(), to.begin());
    });
  }
  return {result->model.Changed(std::move(changes)), *result};
}

double Distance(const Checkpoint& before, const Checkpoint& after) {
  const auto a = Logits(before), b = Logits(after);
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return sum;
}

StructureOptions By(StructureMethod method, const StructureRequest& request, bool repair = true) {
  return {.method = method, .request = request, .repair = repair};
}

TEST_CASE("statistics are those of the papers") {
  const TokenSequences sequences = {{1, 1, 1}, {1}};
  UnitStatistics statistics(4, 2, sequences);
  const std::vector<float> rows = {3, 4, 0, 1, 0, 0, 0, 1, 6, 8, 0, 1, 0, 1, 2, 1};
  statistics.Add(rows.data(), 2, 4);
  statistics.Add(rows.data() + 8, 2, 4);
  // Norms 5, 0, 10 and 1 of the first unit: means 5 and 1.
  CHECK(statistics.Activation()[0] == doctest::Approx(std::sqrt(26.0)));
  CHECK(statistics.MeanSquares()[1] == doctest::Approx(81.0 / 4));
  const std::vector<double> weights = {1, 2, 3, 4};
  const double first = 45.0 / 4 - std::pow(9.0 / 4, 2), second = 81.0 / 4 - std::pow(13.0 / 4, 2);
  const double third = 4.0 / 4 - std::pow(2.0 / 4, 2);  // the fourth column is constant
  CHECK(statistics.Fluctuation(weights)[0] == doctest::Approx(first + 2 * second));
  CHECK(statistics.Fluctuation(weights)[1] == doctest::Approx(3 * third));
  CHECK(KeepBest(std::vector<double>{1, 3, 2, 3}, 2) == std::vector<uint32_t>{1, 3});
  CHECK(ScoreShareLost(std::vector<double>{1, 3, 2, 4}, std::vector<uint32_t>{1, 3}) ==
        doctest::Approx(0.3));
}

TEST_CASE("heads and neurons that give nothing are found, and the model stays the same") {
  TemporaryFolder folder;
  TinyModel tiny = TinyLlama();
  for (auto& [name, tensor] : tiny.tensors) {
    const bool output = name.ends_with("o_proj.weight"), down = name.ends_with("down_proj.weight");
    for (size_t i = 0; (output || down) && i < tensor.values.size(); ++i) {
      const size_t column = i % tensor.shape[1];
      if (output ? column < 24 : column % 5 == 2) tensor.values[i] = 0;
    }
  }
  const Checkpoint before = Written(tiny, folder);
  const StructureRequest request{.ffn = {.count = 32}, .heads = {.count = 2}};
  const Pruned pruned = Prune(before, By(StructureMethod::kFlap, request));
  REQUIRE(pruned.result.layers.size() == 3);
  for (const LayerLoss& loss : pruned.result.layers) {
    CHECK(loss.heads.removed == std::vector<uint32_t>{0});
    CHECK(loss.ffn.removed == std::vector<uint32_t>{2, 7, 12, 17, 22, 27, 32, 37});
    CHECK(loss.ffn.score == 0);
    CHECK(loss.ffn.error == doctest::Approx(0).epsilon(1e-4));
  }
  CheckEquivalent(before, pruned.model);
}

TEST_CASE("norms are scaled so that channels that give nothing can go") {
  TemporaryFolder folder;
  TinyModel tiny = TinyLlama();
  const size_t dim = 48;
  for (auto& [name, tensor] : tiny.tensors) {
    const bool embedding = name.ends_with("embed_tokens.weight");
    const bool writer = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
    for (size_t i = 0; (embedding || writer) && i < tensor.values.size(); ++i) {
      const size_t channel = embedding ? i % dim : i / tensor.shape[1];
      if (channel % 6 == 1) tensor.values[i] = 0;
    }
  }
  const Checkpoint before = Written(tiny, folder);
  REQUIRE(before.spec().dim == dim);
  const StructureRequest request{.width = {.count = 40}};
  const Pruned pruned = Prune(before, By(StructureMethod::kFlap, request, false));
  CheckEquivalent(before, pruned.model);
}

TEST_CASE("every method removes what was asked for; repair makes up for much of it") {
  TemporaryFolder folder;
  const Checkpoint before = Written(TinyLlama(), folder);
  const StructureRequest requests[] = {{.ffn = {.count = 24}},
                                       {.heads = {.count = 2}},
                                       {.width = {.count = 32}},
                                       {.layers = {.count = 1}},
                                       {.ffn = {.count = 32},
                                        .heads = {.count = 2},
                                        .width = {.count = 40},
                                        .layers = {.share = 0.3}}};
  for (const StructureRequest& request : requests) {
    CAPTURE(request.ffn.ToString());
    for (const char* name : {"flap", "minitron", "magnitude", "random"}) {
      CAPTURE(std::string(name));
      const auto method = ParseStructureMethod(name);
      REQUIRE(method);
      const Pruned repaired = Prune(before, By(*method, request));
      const Pruned plain = Prune(before, By(*method, request, false));
      const auto plan = PlanStructure(before.spec(), request);
      const StructureSizes sizes = SizesOf(repaired.model.spec());
      CHECK(sizes.layers == plan->kept.layers);
      CHECK(sizes.channels == plan->kept.channels);
      CHECK(sizes.groups == plan->kept.groups);
      CHECK(sizes.neurons == plan->kept.neurons);
      CHECK(repaired.result.removed_layers.size() == 3 - sizes.layers);
      const double fitted = Distance(before, repaired.model), cut = Distance(before, plain.model);
      if (request.layers.count > 0) {
        CHECK(fitted == cut);
      } else {
        CHECK(fitted < 0.95 * cut);
      }
    }
  }
}

TEST_CASE("fused tensors, biases and an output matrix of its own are repaired too") {
  for (const bool fused : {false, true}) {
    TemporaryFolder folder;
    const TinySizes sizes;
    Json config =
        TinyConfig(fused ? "Phi3ForCausalLM" : "Qwen2ForCausalLM", fused ? "phi3" : "qwen2", sizes);
    config.Set("tie_word_embeddings", false);
    const TinyParts parts{.bias_qkv = !fused, .fused = fused};
    const Checkpoint before = Written(TinyWeights(config, sizes, parts, 4), folder);
    const StructureRequest request{
        .ffn = {.count = 32}, .heads = {.count = 2}, .width = {.count = 40}};
    const Pruned repaired = Prune(before, By(StructureMethod::kFlap, request));
    const Pruned plain = Prune(before, By(StructureMethod::kFlap, request, false));
    CHECK(Distance(before, repaired.model) < 0.9 * Distance(before, plain.model));
    CHECK(Values(repaired.model, "output.weight") != Values(plain.model, "output.weight"));
  }
}

TEST_CASE("the layer that changes the stream least goes") {
  TemporaryFolder folder;
  TinyModel tiny = TinyLlama();
  for (const char* name : {"self_attn.o_proj.weight", "mlp.down_proj.weight"}) {
    for (float& value : tiny.tensors.at(std::string("model.layers.1.") + name).values) {
      value *= 0.01f;
    }
  }
  const Checkpoint before = Written(tiny, folder);
  const Pruned pruned = Prune(before, By(StructureMethod::kFlap, {.layers = {.count = 1}}));
  CHECK(pruned.result.removed_layers == std::vector<uint32_t>{1});
}

TEST_CASE("layers that are named stay as they are, without a text") {
  TemporaryFolder folder;
  const Checkpoint before = Written(TinyLlama(), folder);
  const StructureOptions options = By(StructureMethod::kFlap, {.keep_layers = {1}});
  CHECK_FALSE(NeedsText(options));
  const Pruned pruned = Prune(before, options);
  CHECK(pruned.model.spec().n_layers == 1);
  CHECK(pruned.result.removed_layers == std::vector<uint32_t>{0, 2});
  CHECK(Values(pruned.model, "blk.0.ffn_up.weight") == Values(before, "blk.1.ffn_up.weight"));
}

TEST_CASE("the result does not depend on threads, and random on its seed alone") {
  TemporaryFolder folder;
  const Checkpoint before = Written(TinyLlama(), folder);
  const StructureRequest request{
      .ffn = {.count = 32}, .heads = {.count = 2}, .width = {.count = 40}};
  const auto options = By(StructureMethod::kFlap, request);
  const Pruned one = Prune(before, options, 1), three = Prune(before, options, 3);
  for (const CheckpointTensor& tensor : one.model.tensors()) {
    CHECK(Values(one.model, tensor.name) == Values(three.model, tensor.name));
  }
  StructureOptions random = By(StructureMethod::kRandom, {.ffn = {.count = 8}}, false);
  CHECK_FALSE(NeedsText(random));
  const Pruned first = Prune(before, random), again = Prune(before, random);
  random.seed = 2;
  const Pruned other = Prune(before, random);
  CHECK(first.result.layers[0].ffn.removed == again.result.layers[0].ffn.removed);
  CHECK(first.result.layers[0].ffn.removed != first.result.layers[1].ffn.removed);
  CHECK(first.result.layers[0].ffn.removed != other.result.layers[0].ffn.removed);
}

}  // namespace
}  // namespace edgewise
