// Pruning our own model: every method, what it leaves, and what it costs.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "compress/prune/mask.h"
#include "eval/kl.h"
#include "pipeline/calibrate.h"
#include "pipeline/convert.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

const std::string kModel = SourcePath("models/edgewise-stories-3M");

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// A calibration text and the file made from it, and the last stories to measure on.
struct Texts {
  Texts() {
    const std::string all = ReadAll(kModel + "/stories.txt");
    held_out = all.substr(68000);
    std::ofstream(folder / "head.txt") << all.substr(0, 8000);
    RunCalibrationOptions options;
    options.text.path = text();
    REQUIRE(RunCalibration(kModel, calibration(), options, nullptr));
  }
  std::string text() const { return folder / "head.txt"; }
  std::string calibration() const { return folder / "calibration.gguf"; }
  TemporaryFolder folder;
  std::string held_out;
};

const Texts& Stories() {
  static const Texts texts;
  return texts;
}

PruneJobOptions By(const char* method, const char* sparsity, const std::string& calibration = {}) {
  PruneJobOptions options;
  const auto parsed = ParsePruneMethod(method);
  const auto share = Sparsity::Parse(sparsity);
  REQUIRE((parsed && share));
  options.prune.method = *parsed;
  options.prune.sparsity = *share;
  if (NeedsCalibration(*parsed)) {
    options.calibration.path = calibration.empty() ? Stories().calibration() : calibration;
  }
  options.overwrite = true;
  return options;
}

ConvertSummary MustPrune(const std::string& out, const PruneJobOptions& options) {
  auto summary = Prune(kModel, out, options, nullptr);
  REQUIRE_MESSAGE(summary, (summary ? "" : summary.error().message));
  return *std::move(summary);
}

// Checks every matrix of a layer, and that nothing else has changed.
void CheckPruned(const std::string& path, const Sparsity& sparsity) {
  const auto before = Checkpoint::Open(kModel), after = Checkpoint::Open(path);
  REQUIRE((before && after));
  for (const CheckpointTensor& tensor : after->tensors()) {
    CAPTURE(tensor.name);
    const auto mine = after->Load(*after->Find(tensor.name));
    const auto source = before->Load(*before->Find(tensor.name));
    REQUIRE((mine && source));
    const size_t rows = tensor.shape.rows(), columns = tensor.shape.columns();
    Mask mask(rows, columns, false);
    std::vector<float> row(columns), old(columns);
    for (size_t r = 0; r < rows; ++r) {
      mine->view().DecodeRow(r, row.data());
      source->view().DecodeRow(r, old.data());
      for (size_t c = 0; c < columns; ++c) mask.KeepIf(row[c] != 0, r, c);
      if (!IsPrunable(tensor)) CHECK(row == old);
    }
    if (!IsPrunable(tensor)) continue;
    if (sparsity.structured()) CHECK(mask.Holds(sparsity));
    CHECK(mask.Density() <= 1 - sparsity.ratio + 1e-3);
    CHECK(mask.Density() >= 1 - sparsity.ratio - 2e-3);  // weights that round to 0 in F16
  }
}

double Divergence(const std::string& path) {
  static const auto base = Engine::Load(kModel);
  const auto model = Engine::Load(path);
  REQUIRE((base && model));
  TextOptions options;
  options.convention = TextConvention::kDocuments;
  const auto kl = MeasureKl(base->get(), model->get(), Stories().held_out, options);
  REQUIRE(kl);
  return kl->kl.mean;
}

TEST_CASE("every method prunes what was asked for, and better ones lose less") {
  const TemporaryFolder folder;
  for (const char* sparsity : {"50%", "2:4", "4:8"}) {
    std::map<std::string, double> kl;
    for (const char* method : {"random", "magnitude", "wanda", "ria", "sparsegpt", "alps"}) {
      CAPTURE(std::string(method));
      CAPTURE(std::string(sparsity));
      const std::string out = folder / "out.gguf";
      const PruneJobOptions options = By(method, sparsity);
      const ConvertSummary summary = MustPrune(out, options);
      CHECK(summary.density == doctest::Approx(0.5).epsilon(0.001));
      CHECK(summary.bytes == std::filesystem::file_size(out));
      CheckPruned(out, options.prune.sparsity);
      kl[method] = Divergence(out);
      MESSAGE(std::string(sparsity)
              << " " << std::string(method) << ": mean KL divergence " << kl[method]);
    }
    CHECK(kl["alps"] < kl["sparsegpt"]);
    CHECK(kl["sparsegpt"] < kl["wanda"]);
    CHECK(kl["wanda"] < kl["magnitude"]);
    CHECK(kl["ria"] < kl["magnitude"]);
    CHECK(kl["magnitude"] < kl["random"]);
  }
}

TEST_CASE("a text prunes layer by layer; any number of threads gives the same bytes") {
  const TemporaryFolder folder;
  PruneJobOptions options = By("sparsegpt", "2:4", Stories().text());
  MustPrune(folder / "two", options);
  CheckPruned(folder / "two", options.prune.sparsity);
  options.threads = 1;
  MustPrune(folder / "one", options);
  CHECK(ReadAll(folder / "one") == ReadAll(folder / "two"));
  MustPrune(folder / "file", By("sparsegpt", "2:4"));
  CHECK(Divergence(folder / "two") < 1.1 * Divergence(folder / "file"));
}

TEST_CASE("pruning and rounding in one sweep beats one after the other") {
  const TemporaryFolder folder;
  const std::string sparse = folder / "sparse.gguf", out = folder / "out.gguf";
  MustPrune(sparse, By("sparsegpt", "2:4"));
  QuantizeOptions options;
  options.preset = "s24_q4";
  REQUIRE(Quantize(sparse, out, options, nullptr));
  const double one_by_one = Divergence(out);
  const auto bytes = std::filesystem::file_size(out);
  options.method = QuantizeMethod::kGptq;
  options.calibration.path = Stories().calibration();
  options.overwrite = true;
  REQUIRE(Quantize(kModel, out, options, nullptr));
  const double together = Divergence(out);
  MESSAGE("sparsegpt, then s24_q4: mean KL divergence " << one_by_one << "; gptq onto s24_q4 "
                                                        << together);
  CHECK(together < 0.9 * one_by_one);
  // The metadata tells of the calibration too.
  CHECK(std::filesystem::file_size(out) < bytes + 1000);
}

TEST_CASE("what cannot be pruned") {
  const TemporaryFolder folder;
  const auto fails = [&](const std::string& model, const PruneJobOptions& options,
                         const char* part) {
    const auto summary = Prune(model, folder / "out.gguf", options, nullptr);
    REQUIRE_FALSE(summary);
    CAPTURE(summary.error().message);
    CHECK(summary.error().code == Code::kInvalidArgument);
    CHECK(summary.error().message.find(part) != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(folder / "out.gguf"));
  };
  PruneJobOptions options = By("wanda", "2:4");
  options.calibration.path.clear();
  fails(kModel, options, "needs --calibration");
  options = By("magnitude", "2:4");
  options.calibration.path = Stories().text();
  fails(kModel, options, "has no use");
  fails(kModel, By("magnitude", "3:7"), "7");
  fails(kModel, By("magnitude", "0%"), "prunes nothing");
  options = By("magnitude", "50%");
  MustPrune(folder / "sparse.gguf", options);
  fails(folder / "sparse.gguf", options, "pruned already");
  QuantizeOptions to;
  REQUIRE(Quantize(kModel, folder / "q4.gguf", to, nullptr));
  fails(folder / "q4.gguf", options, "quantized already");
}

}  // namespace
}  // namespace edgewise
