// Test only: pruning our own model by a short text, and what that costs.
#pragma once

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "compress/prune/mask.h"
#include "eval/kl.h"
#include "pipeline/calibrate.h"
#include "pipeline/convert.h"
#include "tests/test_data.h"

namespace edgewise {

inline const std::string kModel = SourcePath("models/edgewise-stories-3M");

// A calibration text and the file made from it, and the last stories to measure on.
struct Texts {
  Texts() {
    const std::string all = ReadWhole(kModel + "/stories.txt");
    held_out = all.substr(68000);
    std::ofstream(folder / "head.txt") << all.substr(0, 8000);
    std::ofstream(folder / "long.txt") << all.substr(0, 40000);
    RunCalibrationOptions options;
    options.text.path = text();
    REQUIRE(RunCalibration(kModel, calibration(), options, nullptr));
  }
  std::string text() const { return folder / "head.txt"; }
  // Many times more tokens than a layer has inputs, which fitting them takes.
  std::string long_text() const { return folder / "long.txt"; }
  std::string calibration() const { return folder / "calibration.gguf"; }
  TemporaryFolder folder;
  std::string held_out;
};

inline const Texts& Stories() {
  static const Texts texts;
  return texts;
}

inline PruneJobOptions By(const char* method, const char* sparsity,
                          const std::string& calibration = {}) {
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

inline ConvertSummary MustPrune(const std::string& out, const PruneJobOptions& options) {
  auto summary = Prune(kModel, out, options, nullptr);
  REQUIRE_MESSAGE(summary, (summary ? "" : summary.error().message));
  return *std::move(summary);
}

// Checks every matrix of a layer, and that nothing else has changed.
inline void CheckPruned(const std::string& path, const Sparsity& sparsity) {
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

inline double Divergence(const std::string& path) {
  static const auto base = Engine::Load(kModel);
  const auto model = Engine::Load(path);
  REQUIRE((base && model));
  TextOptions options;
  options.convention = TextConvention::kDocuments;
  const auto kl = MeasureKl(base->get(), model->get(), Stories().held_out, options);
  REQUIRE(kl);
  return kl->kl.mean;
}

// Checks that pruning `model` is refused with a message that has `part` in it, and writes nothing.
inline void CheckRefused(const std::string& model, const std::string& out,
                         const PruneJobOptions& options, const char* part) {
  const auto summary = Prune(model, out, options, nullptr);
  REQUIRE_FALSE(summary);
  CAPTURE(summary.error().message);
  CHECK(summary.error().code == Code::kInvalidArgument);
  CHECK(summary.error().message.find(part) != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(out));
}

}  // namespace edgewise
