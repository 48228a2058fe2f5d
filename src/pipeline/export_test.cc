#include "pipeline/export.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <span>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "base/json.h"
#include "engine/test_engine.h"
#include "eval/perplexity.h"
#include "formats/hf_folder.h"
#include "model/checkpoint.h"
#include "model/tiny_model.h"
#include "pipeline/convert.h"
#include "tests/test_data.h"
#include "train/test_models.h"

namespace edgewise {
namespace {

std::string OwnModel() { return SourcePath("models/edgewise-stories-3M"); }

ExportOptions To(const char* target) {
  ExportOptions options;
  options.to = target;
  return options;
}

ExportSummary MustExport(const std::string& in, const std::string& out,
                         const ExportOptions& options) {
  auto summary = Export(in, out, options, nullptr);
  REQUIRE_MESSAGE(summary, (summary ? "" : summary.error().message));
  return *summary;
}

Error ExportError(const std::string& in, const std::string& out, const ExportOptions& options) {
  const auto summary = Export(in, out, options, nullptr);
  REQUIRE_FALSE(summary.has_value());
  return summary.error();
}

std::vector<float> Values(const Checkpoint& checkpoint, size_t index) {
  const auto tensor = checkpoint.Load(index);
  REQUIRE(tensor.has_value());
  std::vector<float> values(tensor->view().shape.elements());
  tensor->view().Decode(0, values.size(), values.data());
  return values;
}

Checkpoint MustOpen(const std::string& path) {
  auto checkpoint = Checkpoint::Open(path);
  REQUIRE_MESSAGE(checkpoint, (checkpoint ? "" : checkpoint.error().message));
  return *std::move(checkpoint);
}

double RelativeError(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0, square = 0;
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    error += difference * difference;
    square += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return std::sqrt(error / square);
}

struct Case {
  ExportOptions options;
  double bits_per_weight, largest_error;
};

std::vector<Case> Cases() {
  std::vector<Case> cases = {{To("gptq"), 4.25, 0.11},   {To("gptq"), 4.75, 0.1},
                             {To("gptq"), 3.25, 0.21},   {To("gptq"), 8.25, 0.01},
                             {To("awq"), 4.16, 0.1},     {To("bnb-nf4"), 4.2, 0.1},
                             {To("bnb-int8"), 8.2, 0.02}};
  cases[1].options.group_size = 32;
  cases[1].options.asymmetric = true;
  cases[2].options.bits = 3;
  cases[3].options.bits = 8;
  return cases;
}

// The summary says how far each layer is from its source; that the folder read again is as far
// shows that the values are those that were meant.
TEST_CASE("an exported folder opens with the values that were fitted") {
  const Checkpoint source = MustOpen(OwnModel());
  for (const Case& each : Cases()) {
    CAPTURE(each.options.to);
    CAPTURE(each.options.bits);
    const TemporaryFolder folder;
    const std::string out = folder / "out";
    const ExportSummary summary = MustExport(OwnModel(), out, each.options);
    CHECK(summary.layers.size() == 28);
    CHECK(summary.bytes == std::filesystem::file_size(out + "/model.safetensors"));
    CHECK(std::abs(summary.bits_per_weight - each.bits_per_weight) < 0.2);
    const Checkpoint exported = MustOpen(out);
    REQUIRE(exported.tensors().size() == source.tensors().size());
    size_t layer = 0;
    for (size_t i = 0; i < source.tensors().size(); ++i) {
      CAPTURE(source.tensors()[i].name);
      const auto before = Values(source, i), after = Values(exported, i);
      if (source.tensors()[i].name.find("blk.") == 0 && source.tensors()[i].shape.rank() == 2) {
        const double error = RelativeError(after, before);
        CHECK(error < each.largest_error);
        CHECK(error > 0);
        CHECK(error == doctest::Approx(summary.layers[layer++].relative_rmse).epsilon(1e-9));
      } else {
        CHECK(before == after);
      }
    }
    CHECK(layer == 28);
  }
}

TEST_CASE("an exported folder has a config and the tokenizer of its source") {
  const TemporaryFolder folder;
  const std::string out = folder / "out";
  MustExport(OwnModel(), out, To("awq"));
  for (const char* name : {"tokenizer.model", "tokenizer_config.json", "generation_config.json"}) {
    CHECK(ReadWhole(out + "/" + name) == ReadWhole(OwnModel() + "/" + name));
  }
  const auto config = ParseJson(ReadWhole(out + "/config.json"));
  REQUIRE(config);
  CHECK(*config->Find("model_type")->AsString() == "llama");
  const Json* quantization = config->Find("quantization_config");
  REQUIRE(quantization != nullptr);
  CHECK(*quantization->Find("quant_method")->AsString() == "awq");
  CHECK(*quantization->Find("group_size")->AsInt() == 128);
  const auto opened = HfFolder::Open(out);
  REQUIRE(opened);
  CHECK(opened->tensors().Find("model.layers.0.mlp.down_proj.weight") == nullptr);
  const TensorView* words = opened->tensors().Find("model.layers.0.mlp.down_proj.qweight");
  REQUIRE(words != nullptr);
  CHECK(words->shape == Shape{768, 32});
}

TEST_CASE("the same bytes for any number of threads") {
  const TemporaryFolder folder;
  for (const char* target : {"gptq", "awq", "bnb-nf4", "bnb-int8"}) {
    ExportOptions options = To(target);
    options.threads = 1;
    const std::string one = folder / (std::string(target) + "1");
    const std::string three = folder / (std::string(target) + "3");
    MustExport(OwnModel(), one, options);
    options.threads = 3;
    MustExport(OwnModel(), three, options);
    CHECK(ReadWhole(one + "/model.safetensors") == ReadWhole(three + "/model.safetensors"));
    CHECK(ReadWhole(one + "/config.json") == ReadWhole(three + "/config.json"));
  }
}

// Exporting what is on the grid already loses nothing.
TEST_CASE("a quantized folder is exported again, to the same and to another layout") {
  const TemporaryFolder folder;
  const std::string nf4 = folder / "nf4", gptq = folder / "gptq", again = folder / "again";
  MustExport(OwnModel(), nf4, To("bnb-nf4"));
  MustExport(nf4, gptq, To("gptq"));
  MustExport(gptq, again, To("gptq"));
  const Checkpoint a = MustOpen(gptq), b = MustOpen(again), original = MustOpen(OwnModel());
  for (size_t i = 0; i < a.tensors().size(); ++i) {
    const auto x = Values(a, i), y = Values(b, i);
    CHECK(RelativeError(y, x) < 0.02);
    CHECK(RelativeError(y, Values(original, i)) < 0.2);
  }
}

double Perplexity(const std::string& path) {
  const auto engine = LoadTestEngine(path);
  TextOptions options;
  options.context = 128;
  const auto result = MeasurePerplexity(engine.get(), BundledText(4000), options);
  REQUIRE_MESSAGE(result, (result ? "" : result.error().message));
  return result->perplexity;
}

TEST_CASE("exported models predict nearly as well as their source") {
  const TemporaryFolder folder;
  const double original = Perplexity(OwnModel());
  for (const char* target : {"gptq", "awq", "bnb-nf4", "bnb-int8"}) {
    CAPTURE(target);
    const std::string out = folder / target;
    MustExport(OwnModel(), out, To(target));
    const double ratio = Perplexity(out) / original;
    CHECK(ratio > 0.97);
    CHECK(ratio < 1.06);
  }
}

TEST_CASE("importance moves the error off the columns that matter") {
  const TemporaryFolder folder;
  const TinySizes sizes{
      .dim = 64, .layers = 1, .heads = 4, .kv_heads = 4, .head_dim = 16, .ffn = 96, .vocab = 40};
  TinyWeights(TinyConfig("LlamaForCausalLM", "llama", sizes), sizes, {}, 5).Write(folder.path());
  ExportOptions options = To("gptq");
  options.bits = 3;
  options.group_size = 32;
  const auto error_of_column_5 = [&](const char* name) {
    const std::string out = folder / name;
    MustExport(folder.path(), out, options);
    const Checkpoint source = MustOpen(folder.path()), exported = MustOpen(out);
    const size_t index = *source.Find("blk.0.attn_v.weight");
    const auto before = Values(source, index), after = Values(exported, index);
    double sum = 0;
    for (size_t i = 5; i < before.size(); i += 64) {
      sum += std::pow(static_cast<double>(after[i]) - static_cast<double>(before[i]), 2);
    }
    return sum;
  };
  const double plain = error_of_column_5("plain");
  std::vector<float> weights(64, 0.001f);
  weights[5] = 1.0f;
  options.importance["blk.0.attn_v.weight"] = weights;
  CHECK(error_of_column_5("weighted") < 0.5 * plain);
  options.importance["blk.0.attn_v.weight"].pop_back();
  CHECK(ExportError(folder.path(), folder / "wrong", options).code == Code::kInvalidArgument);
}

TEST_CASE("what cannot be exported is refused before anything is written") {
  const TemporaryFolder folder;
  TinyLlama().Write(folder.path());
  const std::string out = folder / "out";
  const auto refused = [&](ExportOptions options, Code code, const char* part) {
    const Error error = ExportError(folder.path(), out, options);
    CHECK(error.code == code);
    CHECK_MESSAGE(error.message.find(part) != std::string::npos, error.message);
    CHECK_FALSE(std::filesystem::exists(out));
  };
  refused(To("exl2"), Code::kInvalidArgument, "gptq, awq, bnb-nf4, bnb-int8, f16, bf16 and f32");
  ExportOptions options = To("awq");
  options.bits = 3;
  refused(options, Code::kInvalidArgument, "--bits");
  options = To("gptq");
  options.bits = 5;
  refused(options, Code::kInvalidArgument, "--bits");
  options = To("gptq");
  options.group_size = 0;
  refused(options, Code::kInvalidArgument, "--group-size");
  refused(To("awq"), Code::kUnsupported, "q_proj.weight: 48 columns");
  // 12 columns of 4 bits would fill words, 12 rows of a head too; 40 x 3 bits do not.
  options = To("gptq");
  options.bits = 3;
  options.group_size = -1;
  refused(options, Code::kUnsupported, "do not fill 32-bit words");
  CHECK(ExportError(folder.path(), folder.path(), To("bnb-nf4")).code == Code::kInvalidArgument);
  CHECK(ExportError(folder.path(), folder / "absent/out", To("bnb-nf4")).code == Code::kIo);
}

TEST_CASE("a broken weight or a stop leaves nothing behind") {
  const TemporaryFolder folder;
  TinyModel tiny = TinyLlama();
  tiny.tensors["model.layers.2.mlp.up_proj.weight"].values[48 + 7] =
      std::numeric_limits<float>::infinity();
  tiny.Write(folder.path());
  const std::string out = folder / "out";
  const Error error = ExportError(folder.path(), out, To("bnb-nf4"));
  CHECK(error.code == Code::kBadData);
  CHECK_MESSAGE(error.message.find("up_proj.weight holds NaN or infinity at row 1, column 7") !=
                    std::string::npos,
                error.message);
  CHECK_FALSE(std::filesystem::exists(out));
  class Stop final : public Progress {
   public:
    void Update(std::string_view, uint64_t, uint64_t) override { stopped = true; }
    bool Cancelled() const override { return stopped; }
    bool stopped = false;
  } stop;
  const auto stopped = Export(OwnModel(), out, To("awq"), &stop);
  REQUIRE_FALSE(stopped.has_value());
  CHECK(stopped.error().code == Code::kCancelled);
  CHECK_FALSE(std::filesystem::exists(out));
}

TEST_CASE("a GGUF is refused with a way out") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.gguf";
  REQUIRE(Convert(OwnModel(), path, {}, nullptr).has_value());
  const Error error = ExportError(path, folder / "out", To("gptq"));
  CHECK(error.code == Code::kUnsupported);
  CHECK(error.message.find("name the folder") != std::string::npos);
}

TEST_CASE("floats: what was converted to GGUF comes back, in every architecture") {
  for (const auto& tiny : {TinyLlama(), train::test_models::Phi3(), train::test_models::Qwen2(),
                           train::test_models::Qwen3(), train::test_models::Gemma2(),
                           train::test_models::Gemma3(), train::test_models::LlamaWithBiases()}) {
    const TemporaryFolder folder, tokenizer;
    tiny.Write(folder.path());
    const Checkpoint source = MustOpen(folder.path());
    CAPTURE(source.spec().architecture);
    // Any tokenizer's files will do here; the GGUF needs none.
    std::ofstream(tokenizer / "tokenizer.model") << "pieces";
    const std::string out = tokenizer / "out",
                      gguf = train::WriteMatricesIn(DType::kF32, source, tokenizer);
    ExportOptions options = To("f32");
    options.config = folder / "config.json";
    options.tokenizer = tokenizer.path();
    const ExportSummary summary = MustExport(gguf, out, options);
    CHECK(summary.layers.empty());
    CHECK(ReadWhole(out + "/tokenizer.model") == "pieces");
    const auto before = HfFolder::Open(folder.path()), after = HfFolder::Open(out);
    REQUIRE((before && after));
    CHECK(*after->config().Find("torch_dtype")->AsString() == "float32");
    CHECK(before->tensors().all().size() == after->tensors().all().size());
    for (const NamedTensor& tensor : before->tensors().all()) {
      CAPTURE(tensor.name);
      const TensorView* written = after->tensors().Find(tensor.name);
      REQUIRE(written != nullptr);
      REQUIRE(written->shape == tensor.view.shape);
      const size_t n = tensor.view.shape.elements();
      std::vector<float> a(n), b(n);
      tensor.view.Decode(0, n, a.data());
      written->Decode(0, n, b.data());
      // A norm that a GGUF keeps with 1 added loses what 1 cannot carry.
      for (size_t i = 0; i < n; ++i) CHECK(std::abs(a[i] - b[i]) <= (a[i] == b[i] ? 0 : 6e-8f));
      if (source.spec().architecture == "llama") CHECK(a == b);
    }
    // In half the bytes, from the folder itself.
    const std::string half = tokenizer / "half";
    MustExport(out, half, To("bf16"));
    CHECK(std::filesystem::file_size(half + "/model.safetensors") <
          0.6 * static_cast<double>(std::filesystem::file_size(out + "/model.safetensors")));
  }
}

TEST_CASE("floats: what does not belong together is refused before anything is written") {
  const TemporaryFolder folder;
  const std::string gguf = folder / "x.gguf", out = folder / "out", config = folder / "config.json";
  REQUIRE(Convert(OwnModel(), gguf, {}, nullptr).has_value());
  const auto refused = [&](const char* part, const ExportOptions& options) {
    CAPTURE(part);
    const Error error = ExportError(gguf, out, options);
    CAPTURE(error.message);
    CHECK(error.code == Code::kInvalidArgument);
    CHECK(error.message.find(part) != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(out));
  };
  ExportOptions options = To("f16");
  refused("--config and --tokenizer", options);
  options.config = OwnModel();
  options.tokenizer = folder.path();
  refused("no folder with the files of a tokenizer", options);
  options.tokenizer = OwnModel();
  options.config = config;
  for (const auto& [key, value, part] :
       {std::tuple<const char*, Json, const char*>{"num_hidden_layers", 5, "which the model lacks"},
        {"num_hidden_layers", 3, "which the model has"},
        {"intermediate_size", 512, "and the model has it as"},
        {"rope_theta", 5000.0, "for llama.rope.freq_base, and the model"}}) {
    Json changed = *ParseJson(ReadWhole(OwnModel() + "/config.json"));
    changed.Set(key, value);
    std::ofstream(config) << changed.Dump();
    refused(part, options);
  }
  options = To("f16");
  options.bits = 3;
  refused("leave them out", options);
  ExportOptions quantized = To("gptq");
  quantized.config = OwnModel();
  refused("for floats alone", quantized);
  // Not over what it is made from.
  const TemporaryFolder source;
  std::filesystem::copy(OwnModel(), source.path(), std::filesystem::copy_options::recursive);
  options = To("f16");
  options.config = options.tokenizer = source.path();
  options.overwrite = true;
  CHECK(ExportError(gguf, source.path(), options).message.find("replace the input") !=
        std::string::npos);
  CHECK(std::filesystem::exists(source / "config.json"));
  MustExport(gguf, out, options);
  const auto model = Checkpoint::Open(out);
  REQUIRE(model);
  CHECK(Values(*model, 0) == Values(MustOpen(OwnModel()), 0));
}

TEST_CASE("an existing folder is replaced only when asked to") {
  const TemporaryFolder folder;
  TinyLlama().Write(folder.path());
  const std::string out = folder / "out";
  MustExport(folder.path(), out, To("bnb-nf4"));
  const Error error = ExportError(folder.path(), out, To("bnb-nf4"));
  CHECK(error.code == Code::kInvalidArgument);
  CHECK(error.message.find("--force") != std::string::npos);
  ExportOptions options = To("bnb-nf4");
  options.overwrite = true;
  MustExport(folder.path(), out, options);
}

}  // namespace
}  // namespace edgewise
