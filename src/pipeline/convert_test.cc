#include "pipeline/convert.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/sha256.h"
#include "base/strings.h"
#include "engine/vocab_metadata.h"
#include "formats/gguf.h"
#include "formats/hf_folder.h"
#include "model/checkpoint.h"
#include "model/model.h"
#include "pipeline/source_hash.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

std::string OwnModel() { return SourcePath("models/edgewise-stories-3M"); }

std::string TextHash(const std::string& text) {
  return Sha256Hex(std::as_bytes(std::span(text.data(), text.size())));
}

ConvertSummary MustConvert(const std::string& in, const std::string& out,
                           const ConvertOptions& options = {}) {
  auto summary = Convert(in, out, options, nullptr);
  REQUIRE_MESSAGE(summary, (summary ? "" : summary.error().message));
  return *summary;
}

QuantizeSummary MustQuantize(const std::string& in, const std::string& out,
                             const QuantizeOptions& options) {
  auto summary = Quantize(in, out, options, nullptr);
  REQUIRE_MESSAGE(summary, (summary ? "" : summary.error().message));
  return *summary;
}

QuantizeOptions To(const char* preset) {
  QuantizeOptions options;
  options.preset = preset;
  return options;
}

GgufFile MustOpen(const std::string& path) {
  auto file = GgufFile::Open(path);
  REQUIRE_MESSAGE(file, (file ? "" : file.error().message));
  return *std::move(file);
}

Checkpoint MustLoad(const std::string& path) {
  auto checkpoint = Checkpoint::Open(path);
  REQUIRE_MESSAGE(checkpoint, (checkpoint ? "" : checkpoint.error().message));
  return *std::move(checkpoint);
}

std::vector<float> Values(const Checkpoint& checkpoint, const std::string& name) {
  const auto index = checkpoint.Find(name);
  REQUIRE_MESSAGE(index.has_value(), name);
  auto tensor = checkpoint.Load(*index);
  REQUIRE(tensor);
  const TensorView& view = tensor->view();
  std::vector<float> values(view.shape.elements());
  Info(view.dtype).decode(view.data, values.data(), values.size());
  return values;
}

void CheckSameWeights(const Checkpoint& a, const Checkpoint& b) {
  REQUIRE(a.tensors().size() == b.tensors().size());
  for (const CheckpointTensor& tensor : a.tensors()) {
    CAPTURE(tensor.name);
    CHECK(Values(a, tensor.name) == Values(b, tensor.name));
  }
}

std::vector<float> Logits(const std::string& path) {
  ThreadPool pool(2);
  auto model = Model::Load(MustLoad(path), &pool);
  REQUIRE_MESSAGE(model, (model ? "" : model.error().message));
  auto cache = KvCache::Create((*model)->spec(), 16, kernels::KvFormat::kF32);
  REQUIRE(cache);
  ForwardPass pass(**model, &pool);
  const std::vector<int32_t> tokens = {1, 100, 200, 300, 17, 5};
  std::vector<float> logits(tokens.size() * (*model)->spec().vocab_size);
  auto status = pass.Run(tokens, &*cache, 0, logits);
  REQUIRE_MESSAGE(status, (status ? "" : status.error().message));
  return logits;
}

TEST_CASE("our own folder becomes the GGUF that llama.cpp's converter would write") {
  TemporaryFolder folder;
  const std::string out = folder / "model.gguf";
  const ConvertSummary summary = MustConvert(OwnModel(), out);
  CHECK(summary.output == out);
  CHECK(summary.bytes == std::filesystem::file_size(out));
  CHECK(summary.parameters > 3'900'000);
  CHECK(summary.bits_per_weight == doctest::Approx(16).epsilon(0.01));
  CHECK(summary.peak_rss_bytes > 0);

  const GgufFile file = MustOpen(out);
  CHECK(file.version() == 3);
  const Metadata& keys = file.metadata();
  CHECK(keys.GetString("general.architecture").value_or("") == "llama");
  CHECK(keys.GetString("general.type").value_or("") == "model");
  CHECK(keys.GetUint("general.file_type").value_or(99) == 1);
  CHECK(keys.GetUint("general.quantization_version").value_or(0) == 2);
  CHECK(keys.GetUint("llama.block_count").value_or(0) == 4);
  CHECK(keys.GetUint("llama.embedding_length").value_or(0) == 256);
  CHECK(keys.GetUint("llama.feed_forward_length").value_or(0) == 768);
  CHECK(keys.GetUint("llama.attention.head_count").value_or(0) == 8);
  CHECK(keys.GetUint("llama.vocab_size").value_or(0) == 2048);
  CHECK(keys.GetString("tokenizer.ggml.model").value_or("") == "llama");
  CHECK(keys.FindStrings("tokenizer.ggml.tokens")->size() == 2048);
  CHECK(keys.FindFloats("tokenizer.ggml.scores")->size() == 2048);
  CHECK(keys.GetUint("tokenizer.ggml.bos_token_id").value_or(0) == 1);
  CHECK(keys.GetUint("tokenizer.ggml.eos_token_id").value_or(0) == 2);
  CHECK(keys.GetBool("tokenizer.ggml.add_bos_token").value_or(false));

  CHECK(file.tensors().all().size() == 4 * 9 + 2);  // tied: no output.weight
  for (const NamedTensor& tensor : file.tensors().all()) {
    CAPTURE(tensor.name);
    CHECK(tensor.view.dtype == (tensor.view.shape.rank() == 1 ? DType::kF32 : DType::kF16));
  }
  CHECK(file.tensors().Find("blk.3.ffn_down.weight")->shape == Shape{256, 768});
  CHECK(file.tensors().Find("token_embd.weight")->shape == Shape{2048, 256});
}

TEST_CASE(
    "q and k rows are put in the order of interleaved RoPE, all else is byte for byte the "
    "source's") {
  TemporaryFolder folder;
  MustConvert(OwnModel(), folder / "model.gguf");
  const GgufFile file = MustOpen(folder / "model.gguf");
  auto source = HfFolder::Open(OwnModel());
  REQUIRE(source);
  constexpr uint64_t kHeadDim = 32;
  for (const char* part : {"q", "k"}) {
    const TensorView* to = file.tensors().Find(Format("blk.2.attn_%s.weight", part));
    const TensorView* from =
        source->tensors().Find(Format("model.layers.2.self_attn.%s_proj.weight", part));
    REQUIRE(to);
    REQUIRE(from);
    REQUIRE(from->dtype == DType::kF16);
    for (uint64_t head = 0; head < 8; ++head) {
      for (uint64_t i = 0; i < kHeadDim; ++i) {
        // The pair (i, i + 16) of Hugging Face becomes the neighbours (2 i, 2 i + 1).
        const uint64_t row = head * kHeadDim + (i < 16 ? 2 * i : 2 * (i - 16) + 1);
        CHECK(std::memcmp(to->row(row), from->row(head * kHeadDim + i), to->row_bytes()) == 0);
      }
    }
  }
  const TensorView* to = file.tensors().Find("blk.1.ffn_up.weight");
  const TensorView* from = source->tensors().Find("model.layers.1.mlp.up_proj.weight");
  REQUIRE(to);
  REQUIRE(from);
  CHECK(std::memcmp(to->data, from->data, to->bytes) == 0);
}

TEST_CASE("the converted model is the same model") {
  TemporaryFolder folder;
  MustConvert(OwnModel(), folder / "model.gguf");
  CheckSameWeights(MustLoad(OwnModel()), MustLoad(folder / "model.gguf"));
  CHECK(Logits(OwnModel()) == Logits(folder / "model.gguf"));
  auto before = LoadVocab(MustLoad(OwnModel()));
  auto after = LoadVocab(MustLoad(folder / "model.gguf"));
  REQUIRE(before);
  REQUIRE(after);
  CHECK(before->tokens == after->tokens);
  CHECK(before->scores == after->scores);
  CHECK(before->types == after->types);
}

TEST_CASE("GGUF to GGUF keeps the metadata and records the history") {
  TemporaryFolder folder;
  MustConvert(OwnModel(), folder / "half.gguf");
  ConvertOptions options;
  options.to = DType::kF32;
  MustConvert(folder / "half.gguf", folder / "full.gguf", options);
  const GgufFile half = MustOpen(folder / "half.gguf"), full = MustOpen(folder / "full.gguf");
  std::set<std::string> changed;
  for (const auto& [key, value] : half.metadata().all()) {
    const MetaValue* other = full.metadata().Find(key);
    REQUIRE_MESSAGE(other, key);
    if (Describe(value, 1000) != Describe(*other, 1000)) changed.insert(key);
  }
  CHECK(changed == std::set<std::string>{"general.file_type", "edgewise.recipe",
                                         "edgewise.source.sha256", "edgewise.source.files"});
  CHECK(full.metadata().GetUint("general.file_type").value_or(99) == 0);
  CHECK(full.metadata().GetString("edgewise.source.sha256").value_or("") ==
        TextHash(ReadWhole(folder / "half.gguf")));
  const auto* history = full.metadata().FindStrings("edgewise.history");
  REQUIRE(history);
  REQUIRE(history->size() == 1);
  auto step = ParseJson((*history)[0]);
  REQUIRE(step);
  CHECK(*step->Find("source_sha256")->AsString() ==
        half.metadata().GetString("edgewise.source.sha256").value_or(""));
  CheckSameWeights(MustLoad(folder / "half.gguf"), MustLoad(folder / "full.gguf"));
}

TEST_CASE("provenance names version, recipe and the hash of every source file") {
  TemporaryFolder folder;
  const ConvertSummary summary = MustConvert(OwnModel(), folder / "model.gguf");
  const GgufFile file = MustOpen(folder / "model.gguf");
  CHECK_FALSE(file.metadata().GetString("edgewise.version").value_or("").empty());
  CHECK(file.metadata().GetString("edgewise.recipe").value_or("") ==
        R"({"command":"convert","to":"f16"})");
  CHECK(file.metadata().GetString("edgewise.source.sha256").value_or("") == summary.source_sha256);
  const auto* files = file.metadata().FindStrings("edgewise.source.files");
  REQUIRE(files);
  std::string listing;
  std::set<std::string> names;
  for (const std::string& line : *files) {
    listing += line + "\n";
    REQUIRE(line.size() > 66);
    const std::string name = line.substr(66);
    names.insert(name);
    CHECK(line.substr(0, 64) == TextHash(ReadWhole(OwnModel() + "/" + name)));
  }
  CHECK(names == std::set<std::string>{"config.json", "generation_config.json", "model.safetensors",
                                       "tokenizer.model", "tokenizer_config.json"});
  CHECK(summary.source_sha256 == TextHash(listing));
}

TEST_CASE("llama2.c checkpoint with its tokenizer beside it") {
  EW_EXTERNAL_OR_SKIP(path, "models/stories260K/stories260K.bin");
  TemporaryFolder folder;
  ConvertOptions options;
  options.to = DType::kF32;
  MustConvert(path, folder / "model.gguf", options);
  CheckSameWeights(MustLoad(path), MustLoad(folder / "model.gguf"));
  CHECK(Logits(path) == Logits(folder / "model.gguf"));
  const GgufFile file = MustOpen(folder / "model.gguf");
  CHECK(file.metadata().GetUint("llama.vocab_size").value_or(0) == 512);
  CHECK(file.metadata().FindStrings("tokenizer.ggml.tokens")->size() == 512);
  CHECK(file.metadata().FindStrings("edgewise.source.files")->size() == 2);
  auto vocab = LoadVocab(MustLoad(folder / "model.gguf"));
  REQUIRE(vocab);
  auto tokenizer = Tokenizer::Create(*std::move(vocab));
  REQUIRE(tokenizer);
  auto ids = (*tokenizer)->Encode("Once upon a time");
  REQUIRE(ids);
  CHECK((*tokenizer)->Decode(*ids).value_or("") == "Once upon a time");
}

TEST_CASE("rows that a block does not divide, in a real model") {
  EW_EXTERNAL_OR_SKIP(path, "models/stories260K/stories260K.bin");
  TemporaryFolder folder;
  const QuantizeSummary summary = MustQuantize(path, folder / "model.gguf", To("q4_k_m"));
  for (const ConvertedTensor& row : summary.tensors) {
    CAPTURE(row.name);
    if (row.shape.rank() < 2) continue;
    // Rows of 64 take a format of 32-value blocks, rows of 172 none. Layers 2 and 4 of 5 have more
    // bits.
    const bool rich = row.name == "token_embd.weight" || row.name == "blk.2.attn_v.weight" ||
                      row.name == "blk.4.attn_v.weight";
    CHECK(row.to == (row.shape.columns() == 172 ? DType::kF16
                     : rich                     ? DType::kQ8_0
                                                : DType::kQ5_0));
    if (row.name != "token_embd.weight")
      CHECK(row.reason.find("does not divide") != std::string::npos);
  }
  CHECK(Logits(folder / "model.gguf").size() == 6 * 512);
}

TEST_CASE(
    "every preset: the dry run names the exact size, the file reads back, the error shrinks with "
    "the bits") {
  TemporaryFolder folder;
  const std::string half = folder / "half.gguf";
  MustConvert(OwnModel(), half);
  const std::string pruned = folder / "pruned.gguf";
  PruneJobOptions prune;
  prune.prune.sparsity = *Sparsity::NOfM(2, 4);
  REQUIRE(Prune(half, pruned, prune, nullptr));
  std::vector<std::pair<double, double>> bits_and_errors;
  for (const Preset& preset : AllPresets()) {
    CAPTURE(preset.name);
    const std::string out = folder / (std::string(preset.name) + ".gguf");
    QuantizeOptions options = To(preset.name);
    options.dry_run = true;
    const bool sparse = Info(preset.type).sparse();
    const std::string& source = sparse ? pruned : half;
    const QuantizeSummary planned = MustQuantize(source, out, options);
    CHECK_FALSE(std::filesystem::exists(out));
    options.dry_run = false;
    options.threads = 2;
    const QuantizeSummary done = MustQuantize(source, out, options);
    CHECK(planned.bytes == done.bytes);
    CHECK(done.bytes == std::filesystem::file_size(out));
    CHECK(planned.bits_per_weight == done.bits_per_weight);
    REQUIRE(planned.tensors.size() == done.tensors.size());
    const GgufFile file = MustOpen(out);
    CHECK(file.metadata().GetUint("general.file_type").value_or(999) == preset.file_type);
    double squares = 0;
    for (size_t i = 0; i < done.tensors.size(); ++i) {
      const ConvertedTensor& row = done.tensors[i];
      CHECK(planned.tensors[i].to == row.to);
      CHECK(planned.tensors[i].bytes == row.bytes);
      CHECK(file.tensors().all()[i].name == row.name);
      CHECK(file.tensors().all()[i].view.dtype == row.to);
      CHECK(std::isfinite(row.rmse));
      squares += row.relative_rmse * row.relative_rmse;
      if (row.to == row.from) CHECK(row.rmse == 0);
    }
    if (!sparse) {
      bits_and_errors.emplace_back(done.bits_per_weight, squares);
    } else {
      // Its error is that of rounding alone; of a dense model it would be of half the weights.
      CHECK(squares < 0.02 * static_cast<double>(done.tensors.size()));
      const auto dense = Quantize(half, folder / "dense.gguf", options, nullptr);
      REQUIRE_FALSE(dense);
      CHECK(dense.error().message.find("edgewise prune") != std::string::npos);
      CHECK_FALSE(std::filesystem::exists(folder / "dense.gguf"));
    }
    std::filesystem::remove(out);
  }
  for (const auto& [bits, error] : bits_and_errors) {
    for (const auto& [more_bits, other] : bits_and_errors) {
      if (more_bits > bits + 1) CHECK(other <= error);
    }
  }
}

TEST_CASE("a folder quantizes directly, to the weights that the way over F16 gives") {
  TemporaryFolder folder;
  MustConvert(OwnModel(), folder / "half.gguf");
  MustQuantize(folder / "half.gguf", folder / "a.gguf", To("q4_k_m"));
  MustQuantize(OwnModel(), folder / "b.gguf", To("q4_k_m"));
  const GgufFile a = MustOpen(folder / "a.gguf"), b = MustOpen(folder / "b.gguf");
  REQUIRE(a.tensors().all().size() == b.tensors().all().size());
  for (size_t i = 0; i < a.tensors().all().size(); ++i) {
    const NamedTensor &x = a.tensors().all()[i], &y = b.tensors().all()[i];
    CHECK(x.name == y.name);
    REQUIRE(x.view.bytes == y.view.bytes);
    CHECK(std::memcmp(x.view.data, y.view.data, x.view.bytes) == 0);
  }
  CHECK(a.tensors().Find("token_embd.weight")->dtype == DType::kQ6_K);
  CHECK(b.metadata().GetString("tokenizer.ggml.model").value_or("") == "llama");
}

TEST_CASE("the same bytes for any number of threads") {
  TemporaryFolder folder;
  for (const char* preset : {"q4_k_m", "q8_0"}) {
    std::string first;
    for (int threads : {1, 2, 3}) {
      QuantizeOptions options = To(preset);
      options.threads = threads;
      options.overwrite = true;
      MustQuantize(OwnModel(), folder / "out.gguf", options);
      const std::string bytes = ReadWhole(folder / "out.gguf");
      if (first.empty()) first = bytes;
      CHECK(bytes == first);
    }
  }
}

TEST_CASE("overrides reach the file, and a wrong one is an error before anything is written") {
  TemporaryFolder folder;
  QuantizeOptions options = To("q4_0");
  options.overrides = {{"blk\\.0\\.attn_[qk]\\.", DType::kQ8_0}};
  const auto summary = MustQuantize(OwnModel(), folder / "out.gguf", options);
  const GgufFile file = MustOpen(folder / "out.gguf");
  CHECK(file.tensors().Find("blk.0.attn_q.weight")->dtype == DType::kQ8_0);
  CHECK(file.tensors().Find("blk.1.attn_q.weight")->dtype == DType::kQ4_0);
  CHECK(file.metadata().GetString("edgewise.recipe").value_or("").find("attn_[qk]") !=
        std::string::npos);
  const Json json = SummaryToJson(summary);
  CHECK(json.Find("bytes")->AsUint() == summary.bytes);
  CHECK(json.Find("tensors")->AsArray()->size() == 38);

  options.overrides = {{"no_such", DType::kQ8_0}};
  auto wrong = Quantize(OwnModel(), folder / "other.gguf", options, nullptr);
  REQUIRE_FALSE(wrong);
  CHECK(wrong.error().code == Code::kInvalidArgument);
  CHECK_FALSE(std::filesystem::exists(folder / "other.gguf"));
}

TEST_CASE("quantizing what is quantized already") {
  TemporaryFolder folder;
  MustQuantize(OwnModel(), folder / "q8.gguf", To("q8_0"));
  auto refused = Quantize(folder / "q8.gguf", folder / "q4.gguf", To("q4_0"), nullptr);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Code::kInvalidArgument);
  CHECK(refused.error().message.find("--allow-requantize") != std::string::npos);
  QuantizeOptions options = To("q4_0");
  options.allow_requantize = true;
  MustQuantize(folder / "q8.gguf", folder / "q4.gguf", options);
  CHECK(MustOpen(folder / "q4.gguf").tensors().Find("blk.0.attn_q.weight")->dtype == DType::kQ4_0);
  MustConvert(folder / "q8.gguf", folder / "f16.gguf");
  CHECK(MustOpen(folder / "f16.gguf").tensors().Find("blk.0.attn_q.weight")->dtype == DType::kF16);
}

// Writes `value` over the first value of a tensor in an F32 GGUF.
void Damage(const std::string& path, const char* name, float value) {
  size_t offset = 0;
  {
    const GgufFile file = MustOpen(path);
    const TensorView* view = file.tensors().Find(name);
    REQUIRE(view);
    REQUIRE(view->dtype == DType::kF32);
    offset = static_cast<size_t>(view->data - file.map()->bytes().data());
  }
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(offset));
  file.write(reinterpret_cast<const char*>(&value), sizeof(value));
}

TEST_CASE("damaged and overflowing weights name the tensor, and nothing is left behind") {
  TemporaryFolder folder;
  ConvertOptions options;
  options.to = DType::kF32;
  const std::string full = folder / "full.gguf", out = folder / "out.gguf";
  MustConvert(OwnModel(), full, options);
  Damage(full, "blk.1.ffn_up.weight", 1e6f);
  auto overflow = Convert(full, out, {}, nullptr);
  REQUIRE_FALSE(overflow);
  CHECK(overflow.error().code == Code::kBadData);
  CHECK(overflow.error().message.find("blk.1.ffn_up.weight") != std::string::npos);
  CHECK(overflow.error().message.find("--to bf16") != std::string::npos);
  for (const char* method : {"rtn", "gptq"}) {
    QuantizeOptions quantize = To("q3_k_s");
    REQUIRE(ParseMethod(method, &quantize));
    if (quantize.method == QuantizeMethod::kGptq) {
      quantize.calibration = {.path = OwnModel() + "/stories.txt", .max_tokens = 64};
    }
    CAPTURE(method);
    const auto clamped = Quantize(full, out, quantize, nullptr);
    REQUIRE_FALSE(clamped);
    CHECK(clamped.error().code == Code::kBadData);
    CAPTURE(clamped.error().message);
    CHECK(clamped.error().message.find("blk.1.ffn_up.weight, row 0, column 0: the value is too "
                                       "large for q3_k") != std::string::npos);
  }
  options.to = DType::kBF16;
  MustConvert(full, out, options);
  std::filesystem::remove(out);

  for (const char* name : {"blk.1.ffn_up.weight", "output_norm.weight"}) {
    Damage(full, name, std::numeric_limits<float>::quiet_NaN());
    for (const char* preset : {"q4_k_m", "f32"}) {
      auto damaged = Quantize(full, out, To(preset), nullptr);
      REQUIRE_FALSE(damaged);
      CHECK(damaged.error().code == Code::kBadData);
      CHECK(damaged.error().message.find("NaN") != std::string::npos);
    }
  }
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path()))
    ++files;
  CHECK(files == 1);
}

TEST_CASE("what is refused before any work") {
  TemporaryFolder folder;
  const std::string out = folder / "out.gguf";
  MustConvert(OwnModel(), out);
  auto exists = Convert(OwnModel(), out, {}, nullptr);
  REQUIRE_FALSE(exists);
  CHECK(exists.error().code == Code::kInvalidArgument);
  CHECK(exists.error().message.find("--force") != std::string::npos);
  ConvertOptions force;
  force.overwrite = true;
  CHECK(Convert(OwnModel(), out, force, nullptr).has_value());
  CHECK(Convert(out, out, force, nullptr).error().message.find("replace the input") !=
        std::string::npos);
  CHECK(Convert(OwnModel(), folder.path(), force, nullptr).error().code == Code::kInvalidArgument);
  CHECK(Convert(OwnModel(), folder / "none/out.gguf", {}, nullptr).error().code == Code::kIo);
  CHECK(Convert(OwnModel(), "/proc/out.gguf", {}, nullptr).error().code == Code::kIo);
  CHECK(Convert(folder / "absent", folder / "x.gguf", {}, nullptr).error().code == Code::kNotFound);
  CHECK(Quantize(OwnModel(), folder / "x.gguf", To("q9_z"), nullptr).error().code ==
        Code::kInvalidArgument);
  ConvertOptions wrong;
  wrong.to = DType::kQ4_K;
  CHECK(Convert(OwnModel(), folder / "x.gguf", wrong, nullptr).error().message.find("quantize") !=
        std::string::npos);
}

// Cancelled is asked from the hashing thread too.
class StopAfter final : public Progress {
 public:
  explicit StopAfter(int updates) : left_(updates) {}
  void Update(std::string_view stage, uint64_t done, uint64_t total) override {
    CHECK(done <= total);
    stages.insert(std::string(stage));
    --left_;
  }
  bool Cancelled() const override { return left_ <= 0; }
  std::set<std::string> stages;

 private:
  std::atomic<int> left_;
};

TEST_CASE("work stops when asked, without an output") {
  TemporaryFolder folder;
  for (int updates : {1, 12}) {
    StopAfter progress(updates);
    auto stopped = Convert(OwnModel(), folder / "out.gguf", {}, &progress);
    REQUIRE_FALSE(stopped);
    CHECK(stopped.error().code == Code::kCancelled);
    CHECK(std::filesystem::is_empty(folder.path()));
  }
  StopAfter never(1 << 30);
  CHECK(Convert(OwnModel(), folder / "out.gguf", {}, &never).has_value());
  CHECK(never.stages == std::set<std::string>{"writing"});
}

TEST_CASE("the half format follows the source when none is asked for") {
  TemporaryFolder folder;
  ConvertOptions options;
  options.to = DType::kBF16;
  MustConvert(OwnModel(), folder / "bf16.gguf", options);
  options.to = std::nullopt;
  MustConvert(folder / "bf16.gguf", folder / "auto.gguf", options);
  CHECK(MustOpen(folder / "auto.gguf").tensors().Find("token_embd.weight")->dtype == DType::kBF16);
  CHECK(MustOpen(folder / "auto.gguf").metadata().GetUint("general.file_type").value_or(0) == 32);
}

}  // namespace
}  // namespace edgewise
