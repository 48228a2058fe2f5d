// edgewise prune: sets the weights that matter least to zero.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/command.h"
#include "cli/summary.h"
#include "pipeline/convert.h"

namespace edgewise::cli {
namespace {

struct PruneFlags {
  std::string in, out, method, sparsity;
  PruneJobOptions options;
  bool verbose = false;
};

Status RunPrune(PruneFlags& flags, const Common& common) {
  EW_TRY(flags.options.prune.method, ParsePruneMethod(flags.method));
  EW_TRY(flags.options.prune.sparsity, Sparsity::Parse(flags.sparsity).In("--sparsity"));
  flags.options.threads = common.Threads();
  flags.options.estimate = flags.options.dry_run;
  EW_TRY(const ConvertSummary summary, Prune(flags.in, flags.out, flags.options, common.progress));
  return PrintSummary("prune", summary, flags.options.dry_run, flags.verbose, common);
}

}  // namespace

Runner AddPrune(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<PruneFlags>();
  PruneJobOptions& options = flags->options;
  app.add_option("input", flags->in, "GGUF file, Hugging Face folder or llama2.c checkpoint")
      ->required();
  app.add_option("output,--output", flags->out, "GGUF file to write")->required();
  app.add_option("--method", flags->method,
                 "How weights are chosen: magnitude, random, wanda, ria; or chosen and the others "
                 "changed to make up for them: sparsegpt, alps (best, slow)")
      ->required();
  app.add_option("--sparsity", flags->sparsity,
                 "Share of the weights to prune, 50% or 0.5; or N:M, which keeps N of each M in a "
                 "row: 2:4")
      ->required();
  app.add_option("--calibration", options.calibration.path,
                 "Text, or a file of `edgewise calibrate`; for all methods but magnitude and "
                 "random. A text runs through the layers pruned so far");
  app.add_option("--calibration-tokens", options.calibration.max_tokens,
                 "Tokens of the text to use; 0: all")
      ->capture_default_str();
  app.add_option("--seed", options.prune.seed, "Of --method random")->capture_default_str();
  app.add_option("--tokenizer", options.tokenizer_path,
                 "Tokenizer file, where the model does not bring one (llama2.c)");
  AddOutputFlags(app, &options.overwrite, &options.dry_run, &flags->verbose);
  return [flags, &common] { return RunPrune(*flags, common); };
}

}  // namespace edgewise::cli
