#include "eval/audit.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "engine/test_engine.h"
#include "eval/audit_page.h"
#include "eval/probes.h"
#include "pipeline/convert.h"

namespace edgewise {
namespace {

std::string QuantizedPath(const TemporaryFolder& folder, const std::string& preset,
                          std::vector<TypeOverride> overrides = {}) {
  QuantizeOptions options;
  options.preset = preset;
  options.overrides = std::move(overrides);
  NoProgress progress;
  std::string path = folder / (preset + ".gguf");
  const auto summary = Quantize(BundledModel(), path, options, &progress);
  REQUIRE_MESSAGE(summary.has_value(), (summary ? "" : summary.error().message));
  return path;
}

AuditOptions Small() {
  AuditOptions options;
  options.text.context = 64;
  options.blame_windows = 2;
  options.probe_tokens = 4;
  return options;
}

ModelAudit MustAudit(Engine* base, Engine* model, const AuditOptions& options) {
  auto audit = AuditModel(base, model, BundledText(4000), options);
  REQUIRE_MESSAGE(audit.has_value(), (audit ? "" : audit.error().message));
  return *std::move(audit);
}

TEST_CASE("A model does not differ from itself") {
  const ModelAudit audit = MustAudit(BundledEngine(), BundledEngine(), Small());
  CHECK(audit.kl.kl.mean == 0);
  REQUIRE(audit.parts.size() == 6);
  for (const PartBlame& part : audit.parts) CHECK(part.kl_mean == 0);
  for (const TensorError& tensor : audit.tensors) {
    CHECK(tensor.relative_rmse == 0);
    CHECK(tensor.cosine == 1);
    CHECK(!tensor.positions.FindPeak().unusual());
  }
  CHECK(audit.prompts.changed.empty());
  for (const ProbeResult& probe : audit.probes) {
    CHECK(probe.base_answer == probe.answer);
    CHECK(!probe.differs());
  }
}

TEST_CASE("The damaged layer gets the blame, for any number of threads") {
  TemporaryFolder folder;
  const std::string path = QuantizedPath(folder, "q8_0", {{"blk\\.2\\.", DType::kQ2_K}});
  const auto model = LoadTestEngine(path), threads = LoadTestEngine(path, 3);
  const ModelAudit audit = MustAudit(BundledEngine(), model.get(), Small());
  REQUIRE(audit.parts.size() == 6);
  CHECK(audit.parts[0].name == "embedding");
  CHECK(audit.parts[3].name == "layer 2");
  CHECK(audit.parts[5].name == "output");
  for (const PartBlame& part : audit.parts) {
    CHECK(part.kl_mean > 0);
    if (part.name != "layer 2") CHECK(part.kl_mean < audit.parts[3].kl_mean / 10);
  }
  const auto worst = std::max_element(
      audit.tensors.begin(), audit.tensors.end(),
      [](const TensorError& a, const TensorError& b) { return a.relative_rmse < b.relative_rmse; });
  CHECK(worst->name.rfind("blk.2.", 0) == 0);
  CHECK(worst->dtype == DType::kQ2_K);
  CHECK(worst->cosine < 0.99);
  CHECK(worst->cosine > 0.8);
  const ModelAudit again = MustAudit(BundledEngine(), threads.get(), Small());
  for (const char* part : {"blame", "prompts", "tensors", "probes"}) {
    CHECK(ToJson(again).Find(part)->Dump() == ToJson(audit).Find(part)->Dump());
  }
}

// The bundled model with the embedding of one token replaced by that of another.
std::string ChangedEmbedding(const TemporaryFolder& folder, int32_t token, int32_t by) {
  const std::string copy = folder / "changed";
  std::filesystem::copy(BundledModel(), copy);
  std::ifstream in(BundledModel() + "/model.safetensors", std::ios::binary);
  std::stringstream buffer;
  buffer << in.rdbuf();
  std::string bytes = buffer.str();
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  const auto header = ParseJson(std::string_view(bytes).substr(8, header_bytes));
  REQUIRE(header);
  const Json* offsets = header->Find("model.embed_tokens.weight")->Find("data_offsets");
  const size_t row = 2 * BundledEngine()->model().spec().dim;  // F16
  const size_t data = 8 + header_bytes + *offsets->AsArray()->at(0).AsUint();
  bytes.replace(data + static_cast<size_t>(token) * row, row, bytes,
                data + static_cast<size_t>(by) * row, row);
  std::filesystem::permissions(copy + "/model.safetensors", std::filesystem::perms::owner_all);
  std::ofstream(copy + "/model.safetensors", std::ios::binary) << bytes;
  return copy;
}

TEST_CASE("The prompts whose behaviour changed are found among those where it did not") {
  TemporaryFolder folder;
  const auto ids = BundledEngine()->tokenizer().Encode(" dragon", {.add_special = false});
  REQUIRE(ids);
  const auto model = LoadTestEngine(ChangedEmbedding(folder, ids->back(), 5));
  AuditOptions options = Small();
  options.blame_windows = options.probe_tokens = 0;
  options.prompts = "The girl went to the park with a ball.\n";
  for (const char* who : {"boy", "cat", "dog", "bird", "man", "bear", "frog", "fish"}) {
    *options.prompts += std::string("One day a ") + who + " saw a big red box under the tree.\n";
  }
  *options.prompts += "One day a dragon saw a big red box under the tree.\n\n";
  const ModelAudit audit = MustAudit(BundledEngine(), model.get(), options);
  CHECK(audit.prompts.unit == "prompt");
  CHECK(audit.prompts.count == 10);
  REQUIRE(audit.prompts.changed.size() == 1);
  CHECK(audit.prompts.changed[0].index == 9);
  CHECK(audit.prompts.changed[0].text.find("dragon") != std::string::npos);
  CHECK(audit.parts.empty());
  CHECK(audit.probes.empty());
}

TEST_CASE("Pages and lines tell everything and stand alone") {
  TemporaryFolder folder;
  const auto model = LoadTestEngine(QuantizedPath(folder, "q4_0"));
  ModelAudit audit = MustAudit(BundledEngine(), model.get(), Small());
  audit.probes[0].answer = "<b>&\u202E I cannot";
  audit.probes[0].behaviour = Classify(audit.probes[0].answer);
  const std::string page = AuditHtml(audit, {"a <title>", {{"Base", "b"}}, "edgewise audit"});
  const std::string lines = AuditText(audit);
  for (const std::string& text : {page, lines, ToJson(audit).Dump()}) {
    CHECK(text.find("safe") == std::string::npos);
    CHECK(text.find("blk.0.ffn_down.weight") != std::string::npos);
    CHECK(text.find("layer 3") != std::string::npos);
  }
  CHECK(page.find("<script") == std::string::npos);
  CHECK(page.find("http") == std::string::npos);
  CHECK(page.find("a &lt;title&gt;") != std::string::npos);
  CHECK(page.find("&lt;b&gt;&amp;&lt;U+202E&gt; I cannot") != std::string::npos);
  CHECK(page.find("refuses") != std::string::npos);
  CHECK(lines.find("probes that differ: 1 of") != std::string::npos);
}

TEST_CASE("Answers are told by phrases and marks") {
  CHECK(Classify("I\u2019m sorry, but no.").refuses);
  CHECK(Classify("As an AI, ...").refuses);
  CHECK(!Classify("She was not sorry.").refuses);
  CHECK(Classify("see HTTPS://a.b").links);
  CHECK(Classify("```\nx\n```").codes);
  CHECK(Classify("def f(x):").codes);
  CHECK(Classify("Once upon a time") == Behaviour{});
}

TEST_CASE("Models that do not belong together are refused, and work can be cancelled") {
  class Stop final : public Progress {
   public:
    void Update(std::string_view, uint64_t, uint64_t) override {}
    bool Cancelled() const override { return true; }
  } stop;
  const auto stopped =
      AuditModel(BundledEngine(), BundledEngine(), BundledText(4000), Small(), &stop);
  REQUIRE(!stopped);
  CHECK(stopped.error().code == Code::kCancelled);
  EW_EXTERNAL_OR_SKIP(path, "models/stories260K/stories260K.bin");
  EW_EXTERNAL_OR_SKIP(tokenizer, "models/stories260K/tok512.bin");
  EngineOptions options;
  options.tokenizer_path = tokenizer;
  const auto other = Engine::Load(path, options);
  REQUIRE(other);
  const auto refused = AuditModel(BundledEngine(), other->get(), BundledText(4000), Small());
  REQUIRE(!refused);
  CHECK(refused.error().code == Code::kInvalidArgument);
}

}  // namespace
}  // namespace edgewise
