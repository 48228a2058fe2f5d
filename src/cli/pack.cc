// edgewise pack and unpack: the same weights as the kernels read them, and back.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/command.h"
#include "cli/summary.h"
#include "pipeline/convert.h"

namespace edgewise::cli {
namespace {

using Writer = Result<ConvertSummary>(const std::string& in_path, const std::string& out_path,
                                      const PackOptions& options, Progress* progress);

struct PackFlags {
  std::string in, out;
  PackOptions options;
  bool verbose = false;
};

Runner AddWriter(CLI::App& app, const Common& common, const char* verb, Writer* write) {
  auto flags = std::make_shared<PackFlags>();
  app.add_option("input", flags->in, "GGUF file")->required();
  app.add_option("output,--output", flags->out, "GGUF file to write")->required();
  AddOutputFlags(app, &flags->options.overwrite, &flags->options.dry_run, &flags->verbose);
  return [flags, &common, verb, write]() -> Status {
    flags->options.threads = common.Threads();
    flags->options.estimate = flags->options.dry_run;
    EW_TRY(const ConvertSummary summary,
           write(flags->in, flags->out, flags->options, common.progress));
    return PrintSummary(verb, summary, flags->options.dry_run, flags->verbose, common);
  };
}

}  // namespace

Runner AddPack(CLI::App& app, const Common& common) { return AddWriter(app, common, "pack", Pack); }

Runner AddUnpack(CLI::App& app, const Common& common) {
  return AddWriter(app, common, "unpack", Unpack);
}

}  // namespace edgewise::cli
