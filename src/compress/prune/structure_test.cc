// What a request comes to, and models without structure that did nothing.
#include "compress/prune/structure.h"

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "compress/prune/channels.h"
#include "compress/quantize/equivalence.h"
#include "model/arch/tensors.h"

namespace edgewise {
namespace {

Amount Of(const char* text) {
  const auto amount = Amount::Parse(text);
  REQUIRE(amount);
  return *amount;
}

ModelSpec Spec() {
  ModelSpec spec;
  spec.architecture = "llama";
  spec.n_layers = 10;
  spec.dim = 256;
  spec.n_heads = 32;
  spec.n_kv_heads = 8;
  spec.head_dim = 64;
  spec.ffn_dim = 768;
  return spec;
}

TEST_CASE("amounts are shares or counts") {
  CHECK(Of("25%").share == doctest::Approx(0.25));
  CHECK(Of(" 0.5% ").ToString() == "0.5%");
  CHECK(Of("512").count == 512);
  CHECK(Of("512").ToString() == "512");
  for (const char* text : {"", "0", "0%", "100%", "150%", "-1", "25 %%", "nan%", "1.5", "half"}) {
    CAPTURE(std::string(text));
    const auto amount = Amount::Parse(text);
    REQUIRE_FALSE(amount);
    CHECK(amount.error().code == Code::kInvalidArgument);
  }
}

TEST_CASE("shares keep blocks of formats whole") {
  CHECK(DefaultMultiple(11008) == 256);
  CHECK(DefaultMultiple(4864) == 256);
  CHECK(DefaultMultiple(1536) == 64);
  CHECK(DefaultMultiple(768) == 32);
  CHECK(DefaultMultiple(256) == 32);
  CHECK(DefaultMultiple(172) == 4);
  CHECK(DefaultMultiple(7) == 1);
}

TEST_CASE("a request is planned, and says what it rounded") {
  const auto plan = PlanStructure(
      Spec(), {.ffn = Of("25%"), .heads = Of("24"), .width = Of("30%"), .layers = Of("2")});
  REQUIRE(plan);
  CHECK(plan->kept.neurons == 576);
  CHECK(plan->kept.groups == 6);
  CHECK(plan->kept.channels == 192);  // of 179.2
  CHECK(plan->kept.layers == 8);
  REQUIRE(plan->notes.size() == 1);
  CHECK(plan->notes[0] ==
        "--width 30% keeps 192 of 256 channels: rounded to a multiple of 32 columns");
  const auto exact = PlanStructure(
      Spec(), {.heads = Of("30%"), .width = Of("30%"), .layers = Of("12%"), .multiple = 1});
  REQUIRE(exact);
  CHECK(exact->kept.channels == 179);
  CHECK(exact->kept.groups == 6);
  CHECK(exact->kept.layers == 9);
  CHECK(exact->notes.size() == 3);
}

TEST_CASE("requests that cannot be") {
  const auto fails = [](const ModelSpec& spec, const StructureRequest& request, Code code,
                        const char* part) {
    const auto plan = PlanStructure(spec, request);
    REQUIRE_FALSE(plan);
    CAPTURE(plan.error().message);
    CHECK(plan.error().code == code);
    CHECK(plan.error().message.find(part) != std::string::npos);
  };
  const ModelSpec spec = Spec();
  constexpr Code kWrong = Code::kInvalidArgument;
  fails(spec, {}, kWrong, "nothing to remove");
  fails(spec, {.ffn = Of("1%")}, kWrong, "--ffn 1%: the nearest multiple of 32 columns leaves 768");
  fails(spec, {.ffn = Of("99%")}, kWrong, "leaves 0 of 768");
  fails(spec, {.ffn = Of("768")}, kWrong, "--ffn 768 leaves 768 of 768");
  fails(spec, {.ffn = Of("25%"), .multiple = 100}, kWrong,
        "--multiple 100 does not divide the 768");
  fails(spec, {.heads = Of("6")}, kWrong, "--heads 6: each key/value head serves 4 query heads");
  fails(spec, {.heads = Of("32")}, kWrong, "leaves 32 of 32 query heads");
  fails(spec, {.layers = Of("10")}, kWrong, "--layers 10 leaves 0 of 10");
  fails(spec, {.layers = Of("11")}, kWrong, "--layers 11 leaves 0 of 10");
  fails(spec, {.layers = Of("1%")}, kWrong, "leaves 10 of 10 layers");
  fails(spec, {.keep_layers = {0, 10}}, kWrong,
        "name layers of 0 to 9, each once and in order; 10");
  fails(spec, {.keep_layers = {3, 3}}, kWrong, "each once and in order; 3 is not");
  fails(spec, {.keep_layers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}, kWrong, "names all 10 layers");
  fails(spec, {.layers = Of("1"), .keep_layers = {3}}, kWrong, "give one");
  ModelSpec gemma = spec;
  gemma.architecture = "gemma2";
  gemma.post_norms = true;
  gemma.attention_scale = 0.125f;
  gemma.sliding_window = 16;
  gemma.sliding_period = 2;
  fails(gemma, {.width = Of("25%")}, Code::kUnsupported, "gemma2");
  fails(gemma, {.layers = Of("1")}, Code::kUnsupported, "by their number");
  CHECK(PlanStructure(gemma, {.ffn = Of("25%"), .heads = Of("25%")}));
  gemma.attention_scale = 0.1f;
  fails(gemma, {.heads = Of("25%")}, Code::kUnsupported, "scales attention");
}

struct Family {
  const char *model_class, *type;
  TinyParts parts;
};
const Family kFamilies[] = {
    {"LlamaForCausalLM", "llama", {.bias_qkv = true, .bias_output = true}},
    {"Qwen2ForCausalLM", "qwen2", {.bias_qkv = true}},
    {"Qwen3ForCausalLM", "qwen3", {.qk_norm = true}},
    {"Phi3ForCausalLM", "phi3", {.fused = true}},
    {"Gemma2ForCausalLM", "gemma2", {.gemma = true, .head = false}},
};

TinyModel Tiny(const Family& family, const TinySizes& sizes) {
  Json config = TinyConfig(family.model_class, family.type, sizes);
  config.Set("tie_word_embeddings", !family.parts.head);
  if (family.parts.bias_output) config.Set("attention_bias", true);
  if (family.parts.gemma) config.Set("query_pre_attn_scalar", sizes.head_dim);
  return TinyWeights(config, sizes, family.parts, 3);
}

// Sets some rows or columns of tensors whose name ends so to zero.
void Clear(TinyModel* model, const std::string& ending, bool rows, std::vector<uint32_t> which) {
  for (auto& [name, tensor] : model->tensors) {
    if (!name.ends_with(ending)) continue;
    const size_t columns = tensor.shape.size() == 2 ? tensor.shape[1] : 1;
    for (size_t i = 0; i < tensor.values.size(); ++i) {
      const size_t at = rows ? i / columns : i % columns;
      if (std::find(which.begin(), which.end(), at) != which.end()) tensor.values[i] = 0;
    }
  }
}

void CheckShapes(const Checkpoint& model) {
  const auto needed = NeededTensors(model.spec());
  REQUIRE(model.tensors().size() == needed.size());
  for (const NeededTensor& tensor : needed) {
    CAPTURE(tensor.name);
    const auto index = model.Find(tensor.name);
    REQUIRE(index);
    CHECK(model.tensors()[*index].shape == tensor.shape);
  }
}

TEST_CASE("heads, neurons and layers that add nothing can go from every architecture") {
  for (const Family& family : kFamilies) {
    CAPTURE(std::string(family.type));
    TemporaryFolder folder;
    TinySizes sizes;
    sizes.heads = 6;
    sizes.kv_heads = 3;
    sizes.layers = 4;
    TinyModel tiny = Tiny(family, sizes);
    std::vector<uint32_t> second(24);  // columns of the second group's two heads
    for (uint32_t i = 0; i < 24; ++i) second[i] = 24 + i;
    Clear(&tiny, "self_attn.o_proj.weight", false, second);
    Clear(&tiny, "mlp.down_proj.weight", false, {0, 7, 8, 39});
    const bool layers = !family.parts.gemma;
    if (layers) {
      std::vector<uint32_t> all(48);
      for (uint32_t i = 0; i < 48; ++i) all[i] = i;
      Clear(&tiny, "layers.1.self_attn.o_proj.weight", true, all);
      Clear(&tiny, "layers.1.self_attn.o_proj.bias", true, all);
      Clear(&tiny, "layers.1.mlp.down_proj.weight", true, all);
    }
    const Checkpoint before = Written(tiny, folder);
    Structure kept = Structure::First(SizesOf(before.spec()));
    if (layers) {
      kept.layers = {0, 2, 3};
      kept.groups.pop_back();
      kept.neurons.pop_back();
    }
    for (auto& groups : kept.groups) groups = {0, 2};
    for (auto& neurons : kept.neurons) {
      neurons.clear();
      for (uint32_t i = 1; i < 39; ++i) {
        if (i != 7 && i != 8) neurons.push_back(i);
      }
    }
    const Checkpoint after = CutModel(before, kept);
    CHECK(after.spec().n_heads == 4);
    CHECK(after.spec().n_kv_heads == 2);
    CHECK(after.spec().ffn_dim == 36);
    CheckShapes(after);
    CheckEquivalent(before, after);
    const std::string key = after.spec().architecture + ".attention.";
    CHECK(after.metadata().GetUint(key + "head_count").value_or(0) == 4);
    CHECK(after.metadata().GetUint(key + "head_count_kv").value_or(0) == 2);
    CHECK(after.metadata().GetUint(key + "key_length").value_or(0) == 12);
  }
}

TEST_CASE("channels that stay empty can go, once norms know of it") {
  for (const Family& family : kFamilies) {
    if (family.parts.gemma) continue;
    CAPTURE(std::string(family.type));
    TemporaryFolder folder;
    const TinySizes sizes;
    TinyModel tiny = Tiny(family, sizes);
    const std::vector<uint32_t> empty = {0, 5, 6, 30, 31, 32, 46, 47};
    Clear(&tiny, "embed_tokens.weight", false, empty);
    for (const char* writer : {"o_proj.weight", "o_proj.bias", "down_proj.weight"}) {
      Clear(&tiny, writer, true, empty);
    }
    const Checkpoint before = Written(tiny, folder);
    Structure kept = Structure::First(SizesOf(before.spec()));
    std::erase_if(kept.channels, [&](uint32_t c) {
      return std::find(empty.begin(), empty.end(), c) != empty.end();
    });
    const Checkpoint narrow = CutModel(before, kept);
    CheckShapes(narrow);
    CHECK(narrow.spec().dim == 40);
    const std::vector<float> scales(2 * sizes.layers + 1, std::sqrt(48.0f / 40.0f));
    CheckEquivalent(before, WithScaledNorms(narrow, scales));
  }
}

TEST_CASE("a smaller model can be changed and cut again, and the first stays as it was") {
  TemporaryFolder folder;
  const Checkpoint before = Written(TinyLlama(), folder);
  Structure kept = Structure::First(SizesOf(before.spec()));
  kept.layers = {1, 2};
  kept.groups.pop_back();
  kept.neurons.pop_back();
  const Checkpoint once = CutModel(before, kept);
  CHECK(Values(once, "blk.0.ffn_up.weight") == Values(before, "blk.1.ffn_up.weight"));
  const size_t index = *once.Find("blk.1.ffn_norm.weight");
  const Checkpoint changed =
      once.Changed({{index, [](std::span<float> values) { values[3] = 7; }}});
  Structure second = Structure::First(SizesOf(changed.spec()));
  second.layers = {1};
  second.groups.resize(1);
  second.neurons = {{1, 3}};
  second.channels = {3, 9};
  const Checkpoint twice = CutModel(changed, second);
  CHECK(Values(twice, "blk.0.ffn_norm.weight")[0] == 7);
  const auto up = Values(before, "blk.2.ffn_up.weight");
  CHECK(Values(twice, "blk.0.ffn_up.weight") ==
        std::vector<float>{up[48 + 3], up[48 + 9], up[3 * 48 + 3], up[3 * 48 + 9]});
  CHECK(Values(once, "blk.1.ffn_norm.weight") == Values(before, "blk.2.ffn_norm.weight"));
}

}  // namespace
}  // namespace edgewise
