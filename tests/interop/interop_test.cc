// Our files in llama.cpp and llama.cpp's files in ours: same logits, same text, same perplexity,
// format by format.
#include <doctest/doctest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/strings.h"
#include "engine/engine.h"
#include "eval/kl.h"
#include "eval/perplexity.h"
#include "model/arch/tensors.h"
#include "model/lora_file.h"
#include "pipeline/calibrate.h"
#include "pipeline/convert.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

// Where weights are quantized, both sides round activations to 8 bits too: ours in blocks of 32,
// llama.cpp's of 256 in k-quants; for F16 weights it rounds them to half. So logits differ by
// rounding noise: 0.005 measured for f16, at most 0.32 for the others. The judge of both is the
// same file with its weights decoded to F32, run by llama.cpp.
struct FormatRow {
  const char* name;
  double logit_bound;       // largest absolute difference of a logit
  double perplexity_bound;  // of ours from that of the decoded weights, relative
};

const FormatRow kFormats[] = {
    {"f16", 0.01, 1e-4},   {"q8_0", 0.4, 1e-3},   {"q6_k", 0.4, 1e-3},
    {"q5_k_m", 0.4, 1e-3}, {"q4_k_m", 0.4, 1e-3}, {"q4_0", 0.4, 1e-3},
    {"iq4_xs", 0.4, 1e-3}, {"q3_k_m", 0.4, 1e-3}, {"q2_k", 0.4, 1e-3},
};

constexpr int kSkipped = 77;
constexpr uint32_t kContext = 256;

struct Answer {
  int status = 0;
  Json json;
};

// Runs llama_peer without repacked weights, on one thread, with the arguments given (no quotes
// inside).
Answer RunPeer(const std::vector<std::string>& arguments) {
  std::string command = std::string(EDGEWISE_LLAMA_PEER) + " --threads 1 --plain";
  for (const std::string& argument : arguments) command += " '" + argument + "'";
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string output;
  char buffer[65536];
  while (const size_t size = fread(buffer, 1, sizeof(buffer), pipe)) output.append(buffer, size);
  const int status = pclose(pipe);
  Answer answer{WIFEXITED(status) ? WEXITSTATUS(status) : -1, {}};
  if (answer.status != 0) return answer;
  auto json = ParseJson(output);
  REQUIRE_MESSAGE(json, output);
  answer.json = *std::move(json);
  return answer;
}

// False, with a message, when llama.cpp's libraries are absent.
bool PeerIsHere() {
  const Answer answer = RunPeer({"version"});
  if (answer.status != kSkipped) return true;
  MESSAGE(
      "skipped: llama.cpp's libraries are absent; run: npm ci --ignore-scripts --prefix tests/npm");
  return false;
}

Json MustRunPeer(const std::vector<std::string>& arguments) {
  Answer answer = RunPeer(arguments);
  REQUIRE_MESSAGE(answer.status == 0,
                  "llama_peer " << arguments[0] << " ended with " << answer.status);
  return std::move(answer.json);
}

std::vector<double> Numbers(const Json& json, std::string_view key) {
  std::vector<double> numbers;
  REQUIRE(json.Find(key));
  for (const Json& item : *json.Find(key)->AsArray()) numbers.push_back(*item.AsDouble());
  return numbers;
}

std::string OwnModel() { return SourcePath("models/edgewise-stories-3M"); }

std::string Text() {
  auto text = ReadFile(SourcePath("models/edgewise-stories-3M/stories.txt"), 64u << 20);
  REQUIRE(text);
  return text->substr(0, 64000);
}

void WriteOurs(const std::string& format, const std::string& path) {
  if (format == "f16") {
    const auto done = Convert(OwnModel(), path, {}, nullptr);
    REQUIRE_MESSAGE(done, (done ? "" : done.error().message));
    return;
  }
  QuantizeOptions options;
  options.preset = format;
  const auto done = Quantize(OwnModel(), path, options, nullptr);
  REQUIRE_MESSAGE(done, (done ? "" : done.error().message));
}

std::unique_ptr<Engine> MustLoad(const std::string& path) {
  EngineOptions options;
  options.threads = 1;
  auto engine = Engine::Load(path, options);
  REQUIRE_MESSAGE(engine, (engine ? "" : engine.error().message));
  return *std::move(engine);
}

std::vector<int32_t> EncodeFromStart(const Tokenizer& tokenizer, const std::string& text) {
  auto ids = tokenizer.Encode(text, {.add_special = false});
  REQUIRE(ids);
  ids->insert(ids->begin(), *tokenizer.vocab().bos);
  return *std::move(ids);
}

// A sequence run step by step, with a cache of floats.
class Runner {
 public:
  Runner(Engine* engine, uint32_t capacity)
      : forward_(engine->model(), &engine->pool()), logits_(engine->model().spec().vocab_size) {
    auto cache = KvCache::Create(engine->model().spec(), capacity, kernels::KvFormat::kF32);
    REQUIRE(cache);
    cache_ = *std::move(cache);
  }
  // Appends ids; returns the logits after the last.
  const std::vector<float>& Append(std::span<const int32_t> ids) {
    const Status done = forward_.Run(ids, &*cache_, ids.size() - 1, logits_);
    REQUIRE_MESSAGE(done, (done ? "" : done.error().message));
    return logits_;
  }

 private:
  std::optional<KvCache> cache_;
  ForwardPass forward_;
  std::vector<float> logits_;
};

std::vector<std::string> WithIds(std::vector<std::string> arguments, std::span<const int32_t> ids) {
  for (const int32_t id : ids) arguments.push_back(std::to_string(id));
  return arguments;
}

// `more`: options of llama_peer.
double LargestLogitDifference(Engine* engine, const std::string& path,
                              std::span<const int32_t> prompt, std::vector<std::string> more = {}) {
  Runner runner(engine, kContext);
  const std::vector<float>& ours = runner.Append(prompt);
  more.insert(more.end(), {"--kv", "f32", "logits", path});
  const std::vector<double> theirs = Numbers(MustRunPeer(WithIds(more, prompt)), "logits");
  REQUIRE(ours.size() == theirs.size());
  double largest = 0;
  for (size_t i = 0; i < ours.size(); ++i)
    largest = std::max(largest, std::fabs(ours[i] - theirs[i]));
  return largest;
}

// Follows llama.cpp's greedy ids; where ours would choose another one, its best two must have been
// near each other.
void CheckGreedy(Engine* engine, const std::string& path, std::span<const int32_t> prompt,
                 double logit_bound) {
  constexpr size_t kSteps = 64;
  const Json json =
      MustRunPeer(WithIds({"--kv", "f32", "greedy", path, std::to_string(kSteps)}, prompt));
  const std::vector<double> ids = Numbers(json, "ids"), gaps = Numbers(json, "gaps");
  REQUIRE(ids.size() == kSteps);
  Runner runner(engine, kContext);
  std::vector<int32_t> pending(prompt.begin(), prompt.end());
  size_t agreed = 0;
  for (size_t i = 0; i < kSteps; ++i) {
    const std::vector<float>& logits = runner.Append(pending);
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    const auto theirs = static_cast<int32_t>(ids[i]);
    CAPTURE(i);
    if (best == theirs) ++agreed;
    if (best != theirs) CHECK(gaps[i] <= 2 * logit_bound);
    pending = {theirs};
  }
  CHECK(agreed >= kSteps * 9 / 10);
  MESSAGE("greedy: " << agreed << " of " << kSteps << " agree");
}

double OurPerplexity(Engine* engine) {
  TextOptions options;
  options.context = kContext;
  const auto result = MeasurePerplexity(engine, Text(), options);
  REQUIRE_MESSAGE(result, (result ? "" : result.error().message));
  return result->perplexity;
}

double TheirPerplexity(const std::string& path, const std::string& ids_path) {
  return *MustRunPeer({"perplexity", path, std::to_string(kContext), ids_path})
              .Find("perplexity")
              ->AsDouble();
}

void WriteIds(const Tokenizer& tokenizer, const std::string& path) {
  std::ofstream file(path);
  for (const int32_t id : EncodeFromStart(tokenizer, Text())) file << id << '\n';
}

// Ours must be near that of the decoded weights, and not further from it than llama.cpp's by more
// than chance. Returns llama.cpp's.
double CheckPerplexity(Engine* engine, const std::string& path, const std::string& ids_path,
                       double bound) {
  // Rounding noise of activations: in q8_0 ours is 3.2e-4 off with AVX2 and 5.4e-4 with AVX-512,
  // which round the same integers and differ in the order of float sums only.
  constexpr double kChance = 4e-4;
  const std::string decoded = path + ".f32.gguf";
  ConvertOptions options;
  options.to = DType::kF32;
  options.overwrite = true;
  const auto done = Convert(path, decoded, options, nullptr);
  REQUIRE_MESSAGE(done, (done ? "" : done.error().message));
  const double exact = TheirPerplexity(decoded, ids_path);
  const double ours = OurPerplexity(engine), theirs = TheirPerplexity(path, ids_path);
  const double our_error = std::fabs(ours / exact - 1), their_error = std::fabs(theirs / exact - 1);
  MESSAGE("perplexity: decoded weights " << exact << "; relative to it ours " << our_error
                                         << ", llama.cpp's " << their_error
                                         << "; ours over llama.cpp's " << ours / theirs);
  CHECK(our_error <= bound);
  CHECK(our_error <= their_error + kChance);
  CHECK(std::fabs(ours / theirs - 1) <= 2 * bound);
  std::filesystem::remove(decoded);
  return theirs;
}

TEST_CASE("llama.cpp loads what we write and computes the same") {
  if (!PeerIsHere()) return;
  TemporaryFolder folder;
  for (const FormatRow& format : kFormats) {
    const std::string name = format.name, path = folder / (name + ".gguf"),
                      ids_path = folder / "ids.txt";
    CAPTURE(name);
    WriteOurs(name, path);
    const auto engine = MustLoad(path);
    const std::vector<int32_t> ids = EncodeFromStart(engine->tokenizer(), Text());
    double largest = 0;
    for (const size_t length : {1, 2, 17, 64, 200}) {
      largest = std::max(largest,
                         LargestLogitDifference(engine.get(), path, std::span(ids).first(length)));
    }
    MESSAGE(name << ": largest difference of a logit " << largest);
    CHECK(largest <= format.logit_bound);
    CheckGreedy(engine.get(), path, std::span(ids).first(12), format.logit_bound);
    WriteIds(engine->tokenizer(), ids_path);
    CheckPerplexity(engine.get(), path, ids_path, format.perplexity_bound);
  }
}

// Layers, channels, heads and neurons gone: sizes that no model was ever published with.
TEST_CASE("llama.cpp loads what structured pruning leaves and computes the same") {
  if (!PeerIsHere()) return;
  TemporaryFolder folder;
  const std::string text_path = folder / "text.txt", path = folder / "small.gguf",
                    quantized = folder / "small-q8_0.gguf";
  std::ofstream(text_path) << Text().substr(0, 8000);
  PruneJobOptions options;
  options.calibration.path = text_path;
  options.structure = StructureOptions{.request = {.ffn = {.share = 0.25},
                                                   .heads = {.count = 6},
                                                   .width = {.share = 0.25},
                                                   .layers = {.count = 1}}};
  const auto pruned = Prune(OwnModel(), path, options, nullptr);
  REQUIRE_MESSAGE(pruned, (pruned ? "" : pruned.error().message));
  QuantizeOptions to;
  to.preset = "q8_0";
  REQUIRE(Quantize(path, quantized, to, nullptr));
  for (const std::string& file : {path, quantized}) {
    CAPTURE(file);
    const double bound = file == path ? 0.01 : 0.4;
    const auto engine = MustLoad(file);
    const std::vector<int32_t> ids = EncodeFromStart(engine->tokenizer(), Text());
    for (const size_t length : {1, 17, 200}) {
      CHECK(LargestLogitDifference(engine.get(), file, std::span(ids).first(length)) <= bound);
    }
    CheckGreedy(engine.get(), file, std::span(ids).first(12), bound);
  }
}

TEST_CASE("llama.cpp computes with our adapter what we compute with it merged") {
  if (!PeerIsHere()) return;
  TemporaryFolder folder;
  const std::string base = folder / "base.gguf", merged = folder / "merged.gguf",
                    adapter_path = folder / "lora.gguf";
  ConvertOptions options;
  options.to = DType::kF32;
  REQUIRE(Convert(OwnModel(), base, options, nullptr));
  const auto model = Checkpoint::Open(base);
  REQUIRE(model);
  LoraAdapter adapter;
  adapter.alpha = 6;
  Rng rng(1);
  for (const NeededTensor& needed : NeededTensors(model->spec())) {
    if (!needed.linear || !needed.name.starts_with("blk.")) continue;
    const uint64_t out = needed.shape.rows(), in = needed.shape.columns();
    LoraPair pair{needed.name, 4, in, out, std::vector<float>(4 * in), std::vector<float>(4 * out)};
    for (float& x : pair.a) x = static_cast<float>(0.05 * rng.Gaussian());
    for (float& x : pair.b) x = static_cast<float>(0.05 * rng.Gaussian());
    adapter.pairs.push_back(std::move(pair));
  }
  REQUIRE(WriteAdapter(adapter, model->spec(), adapter_path, false));
  options.lora = adapter_path;
  const auto done = Convert(base, merged, options, nullptr);
  REQUIRE_MESSAGE(done, (done ? "" : done.error().message));
  const auto engine = MustLoad(merged);
  const std::vector<int32_t> ids = EncodeFromStart(engine->tokenizer(), Text());
  for (const size_t length : {1, 17, 200}) {
    const std::span<const int32_t> prompt = std::span(ids).first(length);
    const double with =
        LargestLogitDifference(engine.get(), base, prompt, {"--lora", adapter_path});
    const double without = LargestLogitDifference(engine.get(), base, prompt);
    MESSAGE("with the adapter " << with << ", without " << without);
    CHECK(with < 1e-3);
    CHECK(without > 0.1);
  }
}

TEST_CASE("llama.cpp refuses a packed file, and loads what unpack makes of it") {
  if (!PeerIsHere()) return;
  TemporaryFolder folder;
  const std::string packed = folder / "packed.gguf", back = folder / "back.gguf";
  QuantizeOptions options;
  options.preset = "q4_k_m";
  options.pack = true;
  REQUIRE(Quantize(OwnModel(), packed, options, nullptr));
  REQUIRE(Unpack(packed, back, {}, nullptr));
  CHECK(RunPeer({"logits", packed, "1"}).status == 1);  // an error, not a crash
  CHECK(RunPeer({"logits", back, "1"}).status == 0);
}

TEST_CASE("we load what llama.cpp quantizes, and ours is as good") {
  if (!PeerIsHere()) return;
  TemporaryFolder folder;
  const std::string source = folder / "f16.gguf", ids_path = folder / "ids.txt";
  WriteOurs("f16", source);
  for (const FormatRow& format : kFormats) {
    const std::string name = format.name, ours = folder / (name + ".gguf"),
                      theirs = folder / (name + "-theirs.gguf");
    if (name == "f16") continue;
    CAPTURE(name);
    MustRunPeer({"quantize", source, theirs, name});
    const auto engine = MustLoad(theirs);
    WriteIds(engine->tokenizer(), ids_path);
    const double perplexity =
        CheckPerplexity(engine.get(), theirs, ids_path, format.perplexity_bound);
    WriteOurs(name, ours);
    const auto our_size = static_cast<double>(std::filesystem::file_size(ours));
    const auto their_size = static_cast<double>(std::filesystem::file_size(theirs));
    CHECK(our_size == doctest::Approx(their_size).epsilon(0.01));
    const double ratio = TheirPerplexity(ours, ids_path) / perplexity;
    MESSAGE(name << ": perplexity of our file over that of llama.cpp's, in llama.cpp: " << ratio);
    CHECK(ratio <= 1.01);
  }
}

struct QualityRow {
  const char* format;
  double bound;  // of our KL divergence over that of llama.cpp
};

// Both quantize with the same calibration, both files have the same size, and stock llama.cpp loads
// ours. The text is disjoint from that of the calibration.
TEST_CASE("with error feedback our files are nearer to the original than llama.cpp's") {
  if (!PeerIsHere()) return;
  TemporaryFolder folder;
  const std::string source = folder / "f16.gguf", text_path = folder / "calibration.txt",
                    calibration = folder / "calibration.gguf";
  WriteOurs("f16", source);
  const std::string text = Text();
  std::ofstream(text_path) << text.substr(0, 48000);
  RunCalibrationOptions calibrate;
  calibrate.text.path = text_path;
  REQUIRE(RunCalibration(source, calibration, calibrate, nullptr));
  const auto base = MustLoad(source);
  TextOptions held_out;
  held_out.convention = TextConvention::kLlamaCpp;
  const auto divergence = [&](const std::string& path) {
    const auto result = MeasureKl(base.get(), MustLoad(path).get(), text.substr(48000), held_out);
    REQUIRE(result);
    return result->kl.mean;
  };
  for (const QualityRow& row : {QualityRow{"q4_k_s", 0.6},
                                {"q3_k_s", 0.55},
                                {"q2_k_s", 0.55},
                                {"q4_0", 0.65},
                                {"iq4_xs", 0.65}}) {
    CAPTURE(std::string(row.format));
    const std::string theirs = folder / "theirs.gguf", ours = folder / "ours.gguf";
    MustRunPeer({"--imatrix", calibration, "quantize", source, theirs, row.format});
    QuantizeOptions options;
    options.preset = row.format;
    options.method = QuantizeMethod::kGptq;
    options.calibration.path = calibration;
    options.overwrite = true;
    REQUIRE(Quantize(source, ours, options, nullptr));
    const auto our_size = static_cast<double>(std::filesystem::file_size(ours));
    CHECK(our_size <= 1.001 * static_cast<double>(std::filesystem::file_size(theirs)));
    CHECK(RunPeer({"logits", ours, "1"}).status == 0);
    const double ratio = divergence(ours) / divergence(theirs);
    MESSAGE(std::string(row.format)
            << ": KL divergence of our file over that of llama.cpp's: " << ratio);
    CHECK(ratio <= row.bound);
    std::filesystem::remove(theirs);
  }
}

}  // namespace
}  // namespace edgewise
