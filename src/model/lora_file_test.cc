// Adapters written and read again, in both kinds of file; what is refused.
#include "model/lora_file.h"

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <functional>

#include "model/arch/tensors.h"
#include "model/tiny_model.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

Checkpoint OpenTiny(const TinyModel& tiny, const TemporaryFolder& folder) {
  tiny.Write(folder.path());
  auto checkpoint = Checkpoint::Open(folder.path());
  REQUIRE_MESSAGE(checkpoint.has_value(), (checkpoint ? "" : checkpoint.error().message));
  return *std::move(checkpoint);
}

LoraAdapter RandomAdapter(const ModelSpec& spec) {
  LoraAdapter adapter;
  adapter.alpha = 6;
  Rng rng(8);
  for (const NeededTensor& needed : NeededTensors(spec)) {
    if (!needed.linear || !needed.name.starts_with("blk.")) continue;
    const uint64_t out = needed.shape.rows(), in = needed.shape.columns();
    LoraPair pair{needed.name, 3, in, out, std::vector<float>(3 * in), std::vector<float>(3 * out)};
    for (float& x : pair.a) x = static_cast<float>(0.1 * rng.Gaussian());
    for (float& x : pair.b) x = static_cast<float>(0.1 * rng.Gaussian());
    adapter.pairs.push_back(std::move(pair));
  }
  return adapter;
}

const LoraPair& Pair(const LoraAdapter& adapter, const std::string& weight) {
  for (const LoraPair& pair : adapter.pairs) {
    if (pair.weight == weight) return pair;
  }
  FAIL("no pair " << weight);
  return adapter.pairs.front();
}

TEST_CASE("an adapter comes back from both kinds of file") {
  const TemporaryFolder folder;
  const Checkpoint model = OpenTiny(TinyLlama(), folder);
  const LoraAdapter adapter = RandomAdapter(model.spec());
  for (const char* name : {"lora.gguf", "peft"}) {
    CAPTURE(name);
    const std::string path = folder / name;
    REQUIRE(WriteAdapter(adapter, model.spec(), path, false).has_value());
    CHECK(!WriteAdapter(adapter, model.spec(), path, false).has_value());
    CHECK(WriteAdapter(adapter, model.spec(), path, true).has_value());
    const auto read = ReadAdapter(path, model.spec());
    REQUIRE_MESSAGE(read.has_value(), (read ? "" : read.error().message));
    CHECK(read->alpha == adapter.alpha);
    CHECK(read->pairs.size() == adapter.pairs.size());
    for (const LoraPair& pair : adapter.pairs) {
      const LoraPair& other = Pair(*read, pair.weight);
      CHECK(other.rank == 3);
      CHECK(other.a == pair.a);
      CHECK(other.b == pair.b);
    }
  }
}

// W + (alpha / rank) B A as a tool of Hugging Face computes it, from the folder alone.
TEST_CASE("what PEFT makes of the folder is the merged model") {
  const TemporaryFolder folder, merged_folder;
  TinyModel tiny = TinyLlama();
  const Checkpoint model = OpenTiny(tiny, folder);
  const LoraAdapter adapter = RandomAdapter(model.spec());
  REQUIRE(WriteAdapter(adapter, model.spec(), folder / "peft", false).has_value());
  const auto file = SafetensorsFile::Open(folder / "peft/adapter_model.safetensors");
  REQUIRE(file.has_value());
  for (auto& [name, tensor] : tiny.tensors) {
    const std::string module =
        "base_model.model." + name.substr(0, name.size() - std::string(".weight").size());
    const TensorView* a = file->tensors().Find(module + ".lora_A.weight");
    const TensorView* b = file->tensors().Find(module + ".lora_B.weight");
    if (a == nullptr) continue;
    REQUIRE(b != nullptr);
    const uint64_t in = a->shape.columns(), out = b->shape.rows();
    std::vector<float> av(3 * in), bv(3 * out);
    a->Decode(0, av.size(), av.data());
    b->Decode(0, bv.size(), bv.data());
    for (uint64_t row = 0; row < out; ++row) {
      for (uint64_t column = 0; column < in; ++column) {
        float sum = 0;
        for (uint64_t r = 0; r < 3; ++r) sum += bv[row * 3 + r] * av[r * in + column];
        tensor.values[row * in + column] += 6.0f / 3 * sum;
      }
    }
  }
  const Checkpoint expected = OpenTiny(tiny, merged_folder);
  const auto merged = MergeAdapter(model, adapter);
  REQUIRE(merged.has_value());
  for (size_t i = 0; i < model.tensors().size(); ++i) {
    const auto ours = merged->Load(i), theirs = expected.Load(i), before = model.Load(i);
    REQUIRE((ours.has_value() && theirs.has_value() && before.has_value()));
    const size_t count = model.tensors()[i].shape.elements();
    std::vector<float> x(count), y(count), z(count);
    ours->view().Decode(0, count, x.data());
    theirs->view().Decode(0, count, y.data());
    before->view().Decode(0, count, z.data());
    for (size_t j = 0; j < count; ++j) REQUIRE(std::abs(x[j] - y[j]) < 1e-5f);
    const std::string& name = model.tensors()[i].name;
    CHECK((x != z) == (name.starts_with("blk.") && model.tensors()[i].shape.rank() == 2));
  }
}

TEST_CASE("refused adapters: one clear message each") {
  const TemporaryFolder folder;
  const Checkpoint model = OpenTiny(TinyLlama(), folder);
  const LoraAdapter good = RandomAdapter(model.spec());
  int count = 0;
  const auto refused = [&](const std::function<void(LoraAdapter*)>& change, Code code,
                           const std::string& part) {
    CAPTURE(part);
    LoraAdapter bad = good;
    change(&bad);
    const std::string path = folder / (std::to_string(count++) + ".gguf");
    REQUIRE(WriteAdapter(bad, model.spec(), path, false).has_value());
    const auto read = ReadAdapter(path, model.spec());
    REQUIRE(!read.has_value());
    CHECK(read.error().code == code);
    CHECK(read.error().message.find(part) != std::string::npos);
    CHECK(read.error().message.find(path) == 0);
  };
  refused([](LoraAdapter* a) { a->alpha = 0; }, Code::kBadData, "alpha");
  refused([](LoraAdapter* a) { a->pairs[0].weight = "blk.7.attn_q.weight"; },
          Code::kInvalidArgument, "no such linear layer");
  refused([](LoraAdapter* a) { a->pairs[0].weight = "output_norm.weight"; }, Code::kInvalidArgument,
          "no such linear layer");
  refused([](LoraAdapter* a) { a->pairs[0].a[1] = std::nanf(""); }, Code::kBadData, "not finite");
  refused(
      [](LoraAdapter* a) {
        a->pairs[0].in = 2 * a->pairs[0].in;
        a->pairs[0].a.resize(a->pairs[0].in * 3);
      },
      Code::kInvalidArgument, "[3, 96]");
  ModelSpec other = model.spec();
  other.architecture = "qwen2";
  const std::string path = folder / "good.gguf";
  REQUIRE(WriteAdapter(good, model.spec(), path, false).has_value());
  CHECK(ReadAdapter(path, other).error().message.find("qwen2") != std::string::npos);
  CHECK(ReadAdapter(folder / "none.gguf", model.spec()).error().code == Code::kNotFound);

  REQUIRE(WriteAdapter(good, model.spec(), folder / "peft", false).has_value());
  const auto file = SafetensorsFile::Open(folder / "peft/adapter_model.safetensors");
  REQUIRE(file.has_value());
  const auto config = ParseJson(ReadWhole(folder / "peft/adapter_config.json"));
  REQUIRE(config.has_value());
  CHECK(ParsePeftAdapter(*config, *file, model.spec()).has_value());
  const auto variant = [&](const char* key, Json value) {
    CAPTURE(key);
    Json changed = *config;
    changed.Set(key, std::move(value));
    const auto read = ParsePeftAdapter(changed, *file, model.spec());
    REQUIRE(!read.has_value());
    CHECK(read.error().message.find(key) != std::string::npos);
  };
  variant("peft_type", "IA3");
  variant("use_dora", true);
  variant("use_rslora", true);
  variant("lora_alpha", "16");
  variant("alpha_pattern", Json(JsonObject{{"q_proj", 4}}));
}

TEST_CASE("a part without the other, and tensors that are no part") {
  const TemporaryFolder folder;
  const Checkpoint model = OpenTiny(TinyLlama(), folder);
  const auto write = [&](const std::string& name) {
    Metadata metadata;
    metadata.Set("general.architecture", std::string("llama"));
    metadata.Set("general.type", std::string("adapter"));
    metadata.Set("adapter.type", std::string("lora"));
    metadata.Set("adapter.lora.alpha", 4.0f);
    const std::string path = folder / "part.gguf";
    auto writer =
        GgufWriter::Create(path, true, metadata, {{name, DType::kF32, Shape{uint64_t{2}, 48}}});
    REQUIRE(writer.has_value());
    const std::vector<float> values(96);
    REQUIRE(writer->Write(std::as_bytes(std::span(values))).has_value());
    REQUIRE(writer->Finish().has_value());
    const auto read = ReadAdapter(path, model.spec());
    REQUIRE(!read.has_value());
    return read.error().message;
  };
  CHECK(write("blk.0.attn_q.weight.lora_a").find("lora_b\" is missing") != std::string::npos);
  CHECK(write("blk.0.attn_q.weight.lora_b").find("lora_a\" is missing") != std::string::npos);
  CHECK(write("blk.0.attn_norm.weight").find("no part of a LoRA adapter") != std::string::npos);
}

}  // namespace
}  // namespace edgewise
