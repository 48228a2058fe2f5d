// edgewise export: a Hugging Face folder for runtimes that read GPTQ, AWQ, bitsandbytes or floats.
#include "pipeline/export.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "base/strings.h"
#include "cli/command.h"
#include "cli/output.h"

namespace edgewise::cli {
namespace {

struct ExportFlags {
  std::string in, out;
  ExportOptions options;
  bool verbose = false;
};

std::string LayerTable(const ExportSummary& summary) {
  std::vector<std::vector<std::string>> rows = {{"layer", "shape", "bytes", "rel. error"}};
  for (const ExportedLayer& layer : summary.layers) {
    rows.push_back({layer.name, layer.shape.ToString(), std::to_string(layer.bytes),
                    Format("%.5f", layer.relative_rmse)});
  }
  return TextTable(rows);
}

Status RunExport(ExportFlags& flags, const Common& common) {
  flags.options.threads = common.Threads();
  EW_TRY(const ExportSummary summary, Export(flags.in, flags.out, flags.options, common.progress));
  if (common.json) return PrintJson("export", SummaryToJson(summary));
  if (flags.verbose && !summary.layers.empty()) EW_TRY(Print(LayerTable(summary)));
  if (common.quiet) return Ok{};
  if (summary.layers.empty()) {
    return Print(Format(
        "%s: %s, %llu parameters (%s, peak memory %s)\n", summary.output.c_str(),
        FormatBytes(summary.bytes).c_str(), static_cast<unsigned long long>(summary.parameters),
        FormatSeconds(summary.seconds).c_str(), FormatBytes(summary.peak_rss_bytes).c_str()));
  }
  return Print(Format(
      "%s: %s, %zu layers of %.3f bits per weight (%s, peak memory %s)\n", summary.output.c_str(),
      FormatBytes(summary.bytes).c_str(), summary.layers.size(), summary.bits_per_weight,
      FormatSeconds(summary.seconds).c_str(), FormatBytes(summary.peak_rss_bytes).c_str()));
}

}  // namespace

Runner AddExport(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<ExportFlags>();
  ExportOptions& options = flags->options;
  app.add_option("input", flags->in, "Hugging Face folder; for floats any model that we read")
      ->required();
  app.add_option("output,--output", flags->out, "Folder to write")->required();
  app.add_option("--to", options.to,
                 "Layout: gptq (AutoGPTQ, GPTQModel), awq (AutoAWQ GEMM), bnb-nf4, bnb-int8 "
                 "(bitsandbytes); f16, bf16, f32: floats, of any model")
      ->required();
  app.add_option("--bits", options.bits,
                 "Bits of a code: gptq 2, 3, 4 or 8; the others have one size")
      ->capture_default_str();
  app.add_option(
         "--group-size", options.group_size,
         "Columns that share a scale, -1 for all; bnb-nf4 has blocks of 64, bnb-int8 whole rows")
      ->capture_default_str();
  app.add_flag("--asymmetric", options.asymmetric,
               "gptq: fit zero points too (better, but some runtimes take symmetric only)");
  app.add_option("--config", options.config,
                 "Floats: config.json of the model, or the folder with it, where the model brings "
                 "none");
  app.add_option("--tokenizer", options.tokenizer,
                 "Floats: folder with the tokenizer's files, where the model brings none");
  app.add_flag("--force", options.overwrite, "Replace the model in an existing folder");
  app.add_flag("--verbose", flags->verbose, "Print a line for each layer");
  return [flags, &common] { return RunExport(*flags, common); };
}

}  // namespace edgewise::cli
