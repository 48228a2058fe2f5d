#include "compress/prune/permute_model.h"

#include <doctest/doctest.h>

#include "compress/prune/prune.h"
#include "compress/quantize/equivalence.h"

namespace edgewise {
namespace {

PruneOptions By(PruneMethod method, const char* sparsity) {
  PruneOptions options;
  options.method = method;
  options.sparsity = *Sparsity::Parse(sparsity);
  options.permute = true;
  return options;
}

TokenSequences Text(const Checkpoint& model) {
  TokenSequences sequences;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    sequences.push_back(TinyTokens(40, model.spec().vocab_size, seed));
  }
  return sequences;
}

PermutedModel Permuted(const Checkpoint& model, const PruneOptions& options, int threads) {
  ThreadPool pool(threads);
  auto result = PermuteModel(model, options, Text(model), &pool);
  REQUIRE_MESSAGE(result, (result ? "" : result.error().message));
  return *std::move(result);
}

// Heads of 12 columns, two of which share a value head; 40 neurons.
TinyModel WithParts(const TinyParts& parts, const char* name, const char* type) {
  const TinySizes sizes;
  return TinyWeights(TinyConfig(name, type, sizes), sizes, parts, 3);
}

TEST_CASE("a permuted model computes the same, and N:M keeps more of it") {
  const std::pair<const char*, TinyModel> models[] = {
      {"llama", TinyLlama()},
      {"phi3", WithParts({.fused = true}, "Phi3ForCausalLM", "phi3")},
      {"qwen2", WithParts({.bias_qkv = true}, "Qwen2ForCausalLM", "qwen2")},
  };
  for (const auto& [name, tiny] : models) {
    for (const PruneMethod method :
         {PruneMethod::kMagnitude, PruneMethod::kWanda, PruneMethod::kRia, PruneMethod::kAlps}) {
      CAPTURE(std::string(name));
      CAPTURE(std::string(PruneMethodName(method)));
      const TemporaryFolder folder;
      const Checkpoint model = Written(tiny, folder);
      const PermutedModel permuted = Permuted(model, By(method, "2:4"), 2);
      CheckEquivalent(model, permuted.model);
      CHECK(permuted.score_after > permuted.score_before + 0.005);
      for (const char* stem : {"attn_output", "ffn_down"}) {
        const std::string weight = "blk.1." + std::string(stem) + ".weight";
        CHECK(Values(model, weight) != Values(permuted.model, weight));
      }
      CHECK(Values(permuted.model, "blk.1.ffn_down.weight") ==
            Values(Permuted(model, By(method, "2:4"), 1).model, "blk.1.ffn_down.weight"));
    }
  }
}

TEST_CASE("heads that hold no whole groups stay as they are") {
  const TemporaryFolder folder;
  const Checkpoint model = Written(TinyLlama(), folder);
  const PermutedModel permuted = Permuted(model, By(PruneMethod::kRia, "4:8"), 2);  // 12 columns
  CheckEquivalent(model, permuted.model);
  CHECK(Values(model, "blk.0.attn_output.weight") ==
        Values(permuted.model, "blk.0.attn_output.weight"));
  CHECK(Values(model, "blk.0.ffn_down.weight") != Values(permuted.model, "blk.0.ffn_down.weight"));
}

TEST_CASE("what no order of channels helps") {
  CHECK_FALSE(CheckPermutation(By(PruneMethod::kWanda, "50%")));
  CHECK_FALSE(CheckPermutation(By(PruneMethod::kRandom, "2:4")));
  CHECK(CheckPermutation(By(PruneMethod::kWanda, "2:4")));
}

}  // namespace
}  // namespace edgewise
