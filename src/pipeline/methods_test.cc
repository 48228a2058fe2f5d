// Quantizing our own model by a calibration: scaled columns, and formats for a size asked for.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "base/strings.h"
#include "eval/kl.h"
#include "pipeline/calibrate.h"
#include "pipeline/convert.h"
#include "tests/test_data.h"

namespace edgewise {
namespace {

const std::string kModel = SourcePath("models/edgewise-stories-3M");

// A calibration by the first stories, and the last ones to measure on.
struct Texts {
  Texts() {
    const std::string all = ReadWhole(kModel + "/stories.txt");
    held_out = all.substr(66000);
    std::ofstream(folder / "head.txt") << all.substr(0, 20000);
    RunCalibrationOptions options;
    options.text.path = folder / "head.txt";
    REQUIRE(RunCalibration(kModel, calibration(), options, nullptr));
    auto loaded = Engine::Load(kModel);
    REQUIRE(loaded);
    base = *std::move(loaded);
  }
  std::string calibration() const { return folder / "calibration.gguf"; }
  double Divergence(const std::string& path) const {
    auto model = Engine::Load(path);
    REQUIRE(model);
    TextOptions options;
    options.convention = TextConvention::kDocuments;
    const auto kl = MeasureKl(base.get(), model->get(), held_out, options);
    REQUIRE(kl);
    return kl->kl.mean;
  }
  TemporaryFolder folder;
  std::string held_out;
  std::unique_ptr<Engine> base;
};

const Texts& Stories() {
  static const Texts texts;
  return texts;
}

QuantizeOptions By(const char* method, const char* preset, int threads = 0) {
  QuantizeOptions options;
  REQUIRE(ParseMethod(method, &options));
  options.preset = preset;
  if (std::string_view(method) != "rtn") options.calibration.path = Stories().calibration();
  options.threads = threads;
  options.overwrite = true;
  return options;
}

QuantizeSummary MustQuantize(const std::string& out, const QuantizeOptions& options) {
  auto summary = Quantize(kModel, out, options, nullptr);
  REQUIRE_MESSAGE(summary, (summary ? "" : summary.error().message));
  return *std::move(summary);
}

TEST_CASE("scaled columns: the same size, no worse, the same bytes for any number of threads") {
  TemporaryFolder folder;
  const auto divergence = [&](const char* method) {
    MustQuantize(folder / method, By(method, "q3_k_s"));
    return Stories().Divergence(folder / method);
  };
  const double plain = divergence("rtn"), feedback = divergence("gptq");
  CHECK(divergence("awq") < plain);
  CHECK(divergence("awq+gptq") < 1.05 * feedback);
  CHECK(divergence("smooth") < 1.5 * plain);
  MustQuantize(folder / "one", By("awq+gptq", "q3_k_s", 1));
  CHECK(ReadWhole(folder / "one") == ReadWhole(folder / "awq+gptq"));
}

TEST_CASE("a size asked for is met, with no more loss than a preset of that size") {
  TemporaryFolder folder;
  const std::string fixed = folder / "fixed.gguf", fitted = folder / "fitted.gguf";
  for (const char* preset : {"q2_k_s", "q3_k_s", "q4_k_s"}) {
    CAPTURE(std::string(preset));
    const uint64_t target = MustQuantize(fixed, By("imatrix", preset)).bytes;
    QuantizeOptions options = By("imatrix", "");
    options.target_bytes = target;
    const QuantizeSummary summary = MustQuantize(fitted, options);
    CHECK(summary.bytes == std::filesystem::file_size(fitted));
    CHECK(summary.bytes <= target);
    CHECK(static_cast<double>(summary.bytes) >= 0.995 * static_cast<double>(target));
    const double before = Stories().Divergence(fixed), kl = Stories().Divergence(fitted);
    MESSAGE(preset << ": " << before << ", fitted " << kl << ", predicted "
                   << summary.predicted_kl);
    CHECK(kl < before);
    CHECK(summary.predicted_kl > 0.3 * kl);
    CHECK(summary.predicted_kl < 3 * kl);
    options.dry_run = true;
    options.threads = 1;
    const QuantizeSummary planned = MustQuantize(folder / "none", options);
    CHECK(planned.bytes == summary.bytes);
    for (size_t i = 0; i < summary.tensors.size(); ++i) {
      CHECK(planned.tensors[i].to == summary.tensors[i].to);
    }
  }
}

TEST_CASE("overrides stay what they are, and bits per weight are those of the file") {
  TemporaryFolder folder;
  QuantizeOptions options = By("awq", "");
  options.target_bpw = 4.5;
  options.overrides = {{"attn_v", DType::kQ8_0}};
  const QuantizeSummary summary = MustQuantize(folder / "out.gguf", options);
  const double bits =
      8.0 * static_cast<double>(summary.bytes) / static_cast<double>(summary.parameters);
  CHECK(bits <= 4.5);
  CHECK(bits >= 0.995 * 4.5);
  CHECK(summary.scaled_inputs > 0);
  for (const ConvertedTensor& tensor : summary.tensors) {
    if (tensor.name.ends_with("attn_v.weight")) CHECK(tensor.to == DType::kQ8_0);
  }
}

TEST_CASE("a size asked for is no reason to round rounded weights again") {
  TemporaryFolder folder;
  const std::string small = folder / "small.gguf";
  QuantizeOptions options;
  options.preset = "q4_0";
  options.pure = true;
  REQUIRE(Quantize(kModel, small, options, nullptr));
  options = By("imatrix", "");
  options.target_bpw = 3.5;
  const auto again = Quantize(small, folder / "again.gguf", options, nullptr);
  REQUIRE_FALSE(again);
  CHECK(again.error().message.find("is quantized already") != std::string::npos);
}

TEST_CASE("sizes and methods that cannot be") {
  TemporaryFolder folder;
  const auto fails = [&](const QuantizeOptions& options, const char* part) {
    const auto summary = Quantize(kModel, folder / "out.gguf", options, nullptr);
    REQUIRE_FALSE(summary);
    CAPTURE(summary.error().message);
    CHECK(summary.error().code == Code::kInvalidArgument);
    CHECK(summary.error().message.find(part) != std::string::npos);
  };
  QuantizeOptions options = By("imatrix", "");
  fails(options, "--target-bytes");
  options.target_bytes = 100000;
  fails(options, "in f16");
  options.target_bytes = 100'000'000;
  fails(options, "smallest formats");
  options.target_bpw = 4;
  fails(options, "give one of");
  options.target_bytes = 0;
  options.pack = true;
  fails(options, "edgewise pack");
  options.pack = false;
  options.calibration.path.clear();
  fails(options, "--calibration");
  options = By("awq", "q4_0");
  options.calibration.path = Stories().folder / "head.txt";
  fails(options, "edgewise calibrate");
  options.dry_run = true;
  fails(options, "edgewise calibrate");
  CHECK(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace edgewise
