// edgewise compress, recipe and reproduce: from a recipe to a file with its quality card, and back.
#include "pipeline/compress.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "base/file.h"
#include "base/strings.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/summary.h"
#include "pipeline/pass.h"
#include "pipeline/quality_card.h"
#include "pipeline/recipe.h"
#include "pipeline/reproduce.h"

namespace edgewise::cli {
namespace {

struct CompressFlags {
  std::string recipe, output;
  bool dry_run = false;
  CompressOptions options;
};

// How to get what a pruned model has to be compared with, where its card does not tell.
std::string DenseAlternative(const Recipe& recipe, const CompressSummary& summary) {
  const bool pruned = std::ranges::find(summary.passes, "prune") != summary.passes.end();
  if (!pruned || summary.card.Find("dense") != nullptr) return "";
  return Format(
      "A pruned model is worth its loss only beside the dense one in as many bytes:\n"
      "  edgewise quantize %s dense.gguf --target-bytes %llu --method gptq --calibration FILE\n",
      Quote(recipe.model).c_str(), static_cast<unsigned long long>(summary.bytes));
}

Status RunCompress(CompressFlags& flags, const Common& common) {
  EW_TRY(Recipe recipe, ReadRecipe(flags.recipe));
  if (!flags.output.empty()) recipe.output = flags.output;
  flags.options.threads = common.Threads();
  Result<CompressSummary> summary =
      flags.dry_run ? PlanCompression(recipe, flags.options.threads, true, common.progress)
                    : Compress(recipe, flags.options, common.progress);
  if (!summary) return std::move(summary).error();
  if (common.json) {
    return PrintJson("compress", Json(ToJson(*summary)).Set("dry_run", flags.dry_run));
  }
  if (common.quiet) return Ok{};
  const std::string passes = Join(summary->passes, ", ");
  if (flags.dry_run) {
    const std::string bits = summary->target_bytes > 0
                                 ? "formats chosen on the way"
                                 : Format("%.3f bits per weight", summary->bits_per_weight);
    return Print(Format("would write %s: %s%llu bytes (%s), %s (%s; %s)\n", summary->output.c_str(),
                        summary->target_bytes > 0 ? "at most " : "",
                        static_cast<unsigned long long>(summary->bytes),
                        FormatBytes(summary->bytes).c_str(), bits.c_str(), passes.c_str(),
                        EstimateText(*summary->estimate).c_str()));
  }
  return Print(Format("%s: %s, %.3f bits per weight (%s%s; %s, peak memory %s)\n",
                      summary->output.c_str(), FormatBytes(summary->bytes).c_str(),
                      summary->bits_per_weight, passes.c_str(), summary->resumed ? "; resumed" : "",
                      FormatSeconds(summary->seconds).c_str(),
                      FormatBytes(summary->peak_rss_bytes).c_str()) +
               CardText(summary->card) + DenseAlternative(recipe, *summary));
}

Status RunCheck(const std::string& path, const Common& common) {
  EW_TRY(const Recipe recipe, ReadRecipe(path));
  if (common.json) {
    return PrintJson("recipe", Json().Set("path", path).Set("recipe", recipe.json));
  }
  if (common.quiet) return Ok{};
  std::string text = Format("%s: ok\n", path.c_str());
  for (const RecipeStep& step : recipe.passes) {
    text += Format("  %-10s %s\n", step.pass->name, step.pass->summary);
  }
  return Print(text);
}

Status RunInit(const std::string& path, const std::string& model, bool force,
               const Common& common) {
  EW_TRY(AtomicFile file, AtomicFile::Create(path, force));
  EW_TRY(file.Write(RecipeTemplate(model)));
  EW_TRY(file.Commit());
  if (common.json) return PrintJson("recipe", Json().Set("path", path));
  if (common.quiet) return Ok{};
  return Print(Format("%s: name your texts in it, then `edgewise compress %s`\n", path.c_str(),
                      path.c_str()));
}

Status RunReproduce(const std::string& path, ReproduceOptions& options, const Common& common) {
  options.threads = common.Threads();
  EW_TRY(const ReproduceSummary summary, Reproduce(path, options, common.progress));
  if (common.json) {
    Json differences{JsonArray{}};
    for (const std::string& line : summary.differences) differences.Append(line);
    EW_TRY(PrintJson("reproduce", Json()
                                      .Set("path", path)
                                      .Set("equal", summary.equal)
                                      .Set("differences", std::move(differences))
                                      .Set("seconds", summary.seconds)));
  }
  if (!summary.equal) {
    return MakeError(Code::kBadData, "%s: is not what its recipe gives: %s differ", path.c_str(),
                     Join(summary.differences, ", ").c_str());
  }
  if (common.json || common.quiet) return Ok{};
  return Print(Format("%s: made again, the same byte for byte (%s)\n", path.c_str(),
                      FormatSeconds(summary.seconds).c_str()));
}

}  // namespace

Runner AddCompress(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<CompressFlags>();
  app.add_option("recipe", flags->recipe, "Recipe (YAML); `edgewise recipe init` writes one")
      ->required();
  app.add_option("--output", flags->output, "GGUF file to write instead of the recipe's output");
  app.add_flag(
      "--resume", flags->options.resume,
      "Go on where a stopped run left OUTPUT.journal; begin where there is none, and leave an "
      "output that is finished");
  app.add_flag("--force", flags->options.overwrite,
               "Replace an existing output, and without --resume a journal");
  app.add_flag("--dry-run", flags->dry_run,
               "Print the exact size, and time and memory by short trials; write nothing");
  return [flags, &common] { return RunCompress(*flags, common); };
}

Runner AddRecipe(CLI::App& app, const Common& common) {
  struct Flags {
    std::string path, model = "model";
    bool force = false;
  };
  auto flags = std::make_shared<Flags>();
  app.require_subcommand(1);
  CLI::App* check = app.add_subcommand("check", "Find mistakes in a recipe, without the model");
  check->footer(
      "Examples:\n  edgewise recipe check recipe.yaml\n  edgewise recipe check recipe.yaml --json");
  check->add_option("file", flags->path, "Recipe (YAML)")->required();
  CLI::App* init = app.add_subcommand("init", "Write a recipe with comments to begin with");
  init->footer(
      "Examples:\n  edgewise recipe init recipe.yaml\n"
      "  edgewise recipe init recipe.yaml --model models/edgewise-stories-3M");
  init->add_option("file", flags->path, "Recipe to write")->required();
  init->add_option("--model", flags->model, "Model that it names, as seen from the recipe's folder")
      ->capture_default_str();
  init->add_flag("--force", flags->force, "Replace an existing file");
  return [flags, check, &common] {
    return check->parsed() ? RunCheck(flags->path, common)
                           : RunInit(flags->path, flags->model, flags->force, common);
  };
}

Runner AddReproduce(CLI::App& app, const Common& common) {
  struct Flags {
    std::string path;
    ReproduceOptions options;
  };
  auto flags = std::make_shared<Flags>();
  ReproduceOptions& options = flags->options;
  app.add_option("file", flags->path, "GGUF file of `edgewise compress`")->required();
  app.add_option("--recipe", options.recipe_path, "Recipe that says where the inputs are");
  app.add_option("--model", options.model, "Model it was made from (default: beside the file)");
  app.add_option("--tokenizer", options.tokenizer, "Tokenizer file, where the recipe has one");
  app.add_option("--calibration", options.calibration, "Calibration text");
  app.add_option("--evaluation", options.evaluation, "Evaluation text");
  app.add_option("--output", options.output, "Keep what is made under this name");
  app.add_flag("--force", options.overwrite, "Replace an existing output");
  return [flags, &common] { return RunReproduce(flags->path, flags->options, common); };
}

}  // namespace edgewise::cli
