#include "compress/quantize/rotate.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "compress/quantize/equivalence.h"

namespace edgewise {
namespace {

TEST_CASE("a rotated model computes the same logits") {
  struct Family {
    const char *model_class, *type;
    TinyParts parts;
  };
  const Family families[] = {{"LlamaForCausalLM", "llama", {}},
                             {"LlamaForCausalLM", "llama", {.bias_qkv = true, .bias_output = true}},
                             {"Qwen2ForCausalLM", "qwen2", {.bias_qkv = true}},
                             {"Qwen3ForCausalLM", "qwen3", {.qk_norm = true}},
                             {"Phi3ForCausalLM", "phi3", {.fused = true}}};
  for (const Family& family : families) {
    CAPTURE(std::string(family.type));
    TemporaryFolder folder;
    const TinySizes sizes;
    Json config = TinyConfig(family.model_class, family.type, sizes);
    config.Set("tie_word_embeddings", false);
    if (family.parts.bias_output) config.Set("attention_bias", true);
    const Checkpoint before = Written(TinyWeights(config, sizes, family.parts, 3), folder);
    const auto rotation = Rotate(before, 7);
    REQUIRE(rotation.has_value());
    CHECK(rotation->residual);
    CHECK(rotation->values);
    CheckEquivalent(before, rotation->model);
    CHECK(Values(rotation->model, "output_norm.weight") == std::vector<float>(sizes.dim, 1.0f));
    CHECK(Values(rotation->model, "blk.1.ffn_down.weight") !=
          Values(before, "blk.1.ffn_down.weight"));
    const auto other = Rotate(before, 8);
    REQUIRE(other.has_value());
    CHECK(Values(other->model, "blk.1.ffn_down.weight") !=
          Values(rotation->model, "blk.1.ffn_down.weight"));
  }
}

TEST_CASE("with tied embeddings only the values of attention are rotated") {
  auto before = Checkpoint::Open(SourcePath("models/edgewise-stories-3M"));
  REQUIRE(before.has_value());
  const auto rotation = Rotate(*before, 1);
  REQUIRE(rotation.has_value());
  CHECK_FALSE(rotation->residual);
  CHECK(rotation->values);
  CheckEquivalent(*before, rotation->model);
  CHECK(Values(rotation->model, "blk.0.attn_q.weight") == Values(*before, "blk.0.attn_q.weight"));
}

TEST_CASE("columns that carry the stream's outliers are spread") {
  TemporaryFolder folder;
  TinySizes sizes;
  sizes.dim = 64;
  Json config = TinyConfig("LlamaForCausalLM", "llama", sizes);
  TinyModel model = TinyWeights(config, sizes, {}, 5);
  auto& down = model.tensors["model.layers.0.mlp.down_proj.weight"].values;
  for (size_t c = 0; c < sizes.ffn; ++c) down[11 * sizes.ffn + c] *= 30;
  const Checkpoint before = Written(model, folder);
  const auto rotation = Rotate(before, 1);
  REQUIRE(rotation.has_value());
  CheckEquivalent(before, rotation->model);
  // Largest norm of a row over the root mean square of all.
  const auto peak = [&](const Checkpoint& checkpoint) {
    const auto w = Values(checkpoint, "blk.0.ffn_down.weight");
    double largest = 0, total = 0;
    for (size_t row = 0; row < sizes.dim; ++row) {
      double sum = 0;
      for (size_t c = 0; c < sizes.ffn; ++c) {
        sum += std::pow(static_cast<double>(w[row * sizes.ffn + c]), 2);
      }
      largest = std::max(largest, sum);
      total += sum / static_cast<double>(sizes.dim);
    }
    return std::sqrt(largest / total);
  };
  CHECK(peak(before) > 7);
  CHECK(peak(rotation->model) < 3);
}

}  // namespace
}  // namespace edgewise
