// edgewise calibrate: what the linear layers of a model see, for the methods that quantize by it.
#include "pipeline/calibrate.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "base/strings.h"
#include "cli/command.h"
#include "cli/output.h"

namespace edgewise::cli {
namespace {

struct CalibrateFlags {
  std::string model, out;
  std::vector<std::string> merge;
  bool no_hessians = false;
  RunCalibrationOptions options;
};

Result<CalibrationSummary> Calibrated(CalibrateFlags& flags, const Common& common) {
  const bool merging = !flags.merge.empty();
  const bool named = !flags.model.empty() && !flags.options.text.path.empty();
  if (merging != flags.model.empty() || merging == named || flags.out.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "give MODEL TEXT OUTPUT, or --output OUTPUT with a --merge FILE for each "
                     "calibration to add up");
  }
  if (merging) return RunMerge(flags.merge, flags.out, flags.options.overwrite);
  flags.options.hessians = !flags.no_hessians;
  flags.options.threads = common.Threads();
  return RunCalibration(flags.model, flags.out, flags.options, common.progress);
}

Status RunCalibrate(CalibrateFlags& flags, const Common& common) {
  EW_TRY(const CalibrationSummary summary, Calibrated(flags, common));
  if (common.json) return PrintJson("calibrate", ToJson(summary));
  std::printf("%s: %llu tokens, %zu weights%s, %s, %s\n", summary.output.c_str(),
              static_cast<unsigned long long>(summary.origin.tokens), summary.weights,
              summary.hessians ? " with second moments" : "", FormatBytes(summary.bytes).c_str(),
              FormatSeconds(summary.seconds).c_str());
  return Ok{};
}

}  // namespace

Runner AddCalibrate(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<CalibrateFlags>();
  RunCalibrationOptions& options = flags->options;
  app.add_option("model", flags->model, "GGUF file, Hugging Face folder or llama2.c checkpoint");
  app.add_option("text", options.text.path, "Text file to run through the model");
  app.add_option("output,--output", flags->out, "Calibration file to write (GGUF)");
  app.add_option("--merge", flags->merge, "Calibration to add up with the others; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--tokens", options.text.max_tokens, "Tokens of the text to use; 0: all")
      ->capture_default_str();
  app.add_option("--ctx", options.text.context,
                 "Tokens of a sequence (default: 512, or the trained context)");
  app.add_option("--part-tokens", options.part_tokens,
                 "Keep the sums so far in OUTPUT.part after as many tokens")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--no-hessians", flags->no_hessians,
               "Only sums of columns, as in llama.cpp's imatrix: enough for --method imatrix");
  app.add_flag("--resume", options.resume, "Go on from OUTPUT.part of a stopped run");
  app.add_option("--tokenizer", options.tokenizer_path,
                 "Tokenizer file, where the model does not bring one (llama2.c)");
  app.add_flag("--force", options.overwrite, "Replace the output file");
  return [flags, &common] { return RunCalibrate(*flags, common); };
}

}  // namespace edgewise::cli
