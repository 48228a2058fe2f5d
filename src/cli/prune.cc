// edgewise prune: sets the weights that matter least to zero, or removes structure that matters
// least.
#include <CLI/CLI.hpp>
#include <memory>

#include "base/strings.h"
#include "cli/command.h"
#include "cli/summary.h"
#include "pipeline/convert.h"

namespace edgewise::cli {
namespace {

struct PruneFlags {
  std::string in, out, method, sparsity;
  std::string ffn, heads, width, layers;
  std::vector<uint32_t> keep_layers;
  bool no_repair = false, owl = false, permute = false;
  uint32_t steps = 1;
  uint64_t multiple = 0, seed = 1;
  PruneJobOptions options;
  bool verbose = false;
};

Result<Amount> ReadAmount(const std::string& text, const char* flag) {
  if (text.empty()) return Amount();
  return Amount::Parse(text).In(flag);
}

Result<StructureRequest> ReadRequest(const PruneFlags& flags) {
  StructureRequest request;
  EW_TRY(request.ffn, ReadAmount(flags.ffn, "--ffn"));
  EW_TRY(request.heads, ReadAmount(flags.heads, "--heads"));
  EW_TRY(request.width, ReadAmount(flags.width, "--width"));
  EW_TRY(request.layers, ReadAmount(flags.layers, "--layers"));
  request.keep_layers = flags.keep_layers;
  request.multiple = flags.multiple;
  return request;
}

// The first given of the flags that go with a sparsity only.
const char* WeightFlag(const PruneFlags& flags) {
  return flags.owl ? "--owl" : flags.permute ? "--permute" : "--steps";
}

Status CheckMaskFlags(const PruneFlags& flags) {
  const bool other = flags.owl || flags.permute || flags.steps > 1;
  if (flags.sparsity.empty() && !other) return Ok{};
  return MakeError(Code::kInvalidArgument, "%s has no use with --mask, which says what goes",
                   other ? WeightFlag(flags) : "--sparsity");
}

// Reads what is removed: single weights or structure.
Status ReadKind(PruneFlags& flags) {
  EW_TRY(const StructureRequest request, ReadRequest(flags));
  const bool masks = !flags.options.masks.empty();
  if (request.given() == (masks || !flags.sparsity.empty())) {
    return MakeError(
        Code::kInvalidArgument,
        request.given()
            ? "--sparsity and --mask set single weights to zero and --ffn, --heads, "
              "--width, --layers, --keep-layers remove structure: prune twice for both, "
              "structure first"
            : "give --sparsity, --method mask with --mask, or any of "
              "--ffn, --heads, --width, --layers and --keep-layers");
  }
  if (!request.given()) {
    if (flags.multiple > 0 || flags.no_repair) {
      return MakeError(Code::kInvalidArgument, "%s has no use with %s",
                       flags.multiple > 0 ? "--multiple" : "--no-repair",
                       masks ? "--mask" : "--sparsity");
    }
    EW_TRY(flags.options.prune.method, ParsePruneMethod(flags.method));
    if (masks) return CheckMaskFlags(flags);
    EW_TRY(flags.options.prune.sparsity, Sparsity::Parse(flags.sparsity).In("--sparsity"));
    flags.options.prune.seed = flags.seed;
    flags.options.prune.owl = flags.owl;
    flags.options.prune.permute = flags.permute;
    flags.options.prune.steps = flags.steps;
    return Ok{};
  }
  if (flags.owl || flags.permute || flags.steps > 1) {
    return MakeError(Code::kInvalidArgument, "%s goes with --sparsity only", WeightFlag(flags));
  }
  if (!flags.options.save_mask.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "--save-mask goes with single weights; structure leaves none masked");
  }
  StructureOptions structure{.request = request, .repair = !flags.no_repair, .seed = flags.seed};
  EW_TRY(structure.method, ParseStructureMethod(flags.method));
  flags.options.structure = structure;
  return Ok{};
}

Status RunPrune(PruneFlags& flags, const Common& common) {
  EW_TRY(ReadKind(flags));
  flags.options.threads = common.Threads();
  flags.options.estimate = flags.options.predict = flags.options.dry_run;
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
  app.add_option(
         "--method", flags->method,
         "With --sparsity, how weights are chosen: magnitude, global-magnitude (over all "
         "matrices), random, wanda, ria; magnitude+dsnot, wanda+dsnot (then swapped); or chosen "
         "and the others changed to make up for them: sparsegpt, alps (best, slow). With --mask: "
         "mask. Of structure: flap (variance of inputs), minitron (size of inputs), magnitude, "
         "random")
      ->required();
  app.add_option("--sparsity", flags->sparsity,
                 "Share of the weights to set to zero, 50% or 0.5; or N:M, which keeps N of each M "
                 "in a row: 2:4");
  app.add_flag("--owl", flags->owl,
               "Spread the share of --sparsity: layers with more outliers keep more");
  app.add_option(
         "--steps", flags->steps,
         "Prune in so many steps to --sparsity, each by what the model pruned so far gives; "
         "of 2:4 at most 3:4 and 2:4")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_flag("--permute", flags->permute,
               "With N:M: first order the inputs of attn_output and ffn_down so that more is kept; "
               "the model computes the same");
  app.add_option("--mask", options.masks,
                 "With --method mask: a mask file, or a pruned model, whose zeros are the mask; of "
                 "several a weight stays where all keep it")
      ->allow_extra_args(false);
  app.add_option("--save-mask", options.save_mask,
                 "Also write which weights stay, one bit each: a file for --mask and `inspect`");
  app.add_option("--ffn", flags->ffn,
                 "Feed-forward neurons: share to remove, 25%, or number to keep");
  app.add_option(
      "--heads", flags->heads,
      "Query heads, in groups that share a key/value head: share to remove, or number to "
      "keep");
  app.add_option("--width", flags->width,
                 "Channels of the residual stream: share to remove, or number to keep");
  app.add_option("--layers", flags->layers,
                 "Layers: share or number to remove, those that change the stream least");
  app.add_option("--keep-layers", flags->keep_layers,
                 "In place of --layers the numbers of those that stay, from 0: 0,2,4")
      ->delimiter(',');
  app.add_option("--multiple", flags->multiple,
                 "Round what shares keep to a multiple of so many columns; 0: the largest power of "
                 "two that fits, at most 256 and a sixteenth of the columns, but 32")
      ->capture_default_str();
  app.add_flag("--no-repair", flags->no_repair,
               "Do not fit the matrices that read what is left of the structure");
  app.add_option("--calibration", options.calibration.path,
                 "Text, or for --sparsity a file of `edgewise calibrate`; for all methods but "
                 "magnitude and random, and for repair. A text runs through the layers pruned so "
                 "far");
  app.add_option("--calibration-tokens", options.calibration.max_tokens,
                 "Tokens of the text to use; 0: all")
      ->capture_default_str();
  app.add_option("--seed", flags->seed, "Of --method random")->capture_default_str();
  app.add_option("--tokenizer", options.tokenizer_path,
                 "Tokenizer file, where the model does not bring one (llama2.c)");
  AddOutputFlags(app, &options.overwrite, &options.dry_run, &flags->verbose);
  return [flags, &common] { return RunPrune(*flags, common); };
}

}  // namespace edgewise::cli
