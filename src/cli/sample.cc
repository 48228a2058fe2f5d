// edgewise sample: text of a model's own distribution, to learn from, calibrate with or measure on.
#include <CLI/CLI.hpp>
#include <memory>

#include "base/file.h"
#include "base/process.h"
#include "base/strings.h"
#include "cli/command.h"
#include "cli/generation_flags.h"
#include "cli/output.h"
#include "pipeline/compare.h"
#include "pipeline/output_path.h"
#include "text/document_separator.h"

namespace edgewise::cli {
namespace {

struct SampleFlags {
  std::string model, tokenizer, output, separator{kDocumentSeparator};
  uint64_t tokens = 20000, seed = 1;
  bool force = false;
};

Status RunSample(const SampleFlags& flags, const Common& common) {
  const double start = NowSeconds();
  EW_TRY(CheckOutput(flags.model, flags.output, flags.force));
  EngineOptions options;
  options.threads = common.Threads();
  options.tokenizer_path = flags.tokenizer;
  EW_TRY(const std::unique_ptr<Engine> engine, Engine::Load(flags.model, options));
  EW_TRY(const std::string text,
         SampleText(engine.get(), flags.tokens, flags.seed, flags.separator, common.progress));
  EW_TRY(AtomicFile file, AtomicFile::Create(flags.output, flags.force));
  EW_TRY(file.Write(text));
  EW_TRY(file.Commit());
  const double seconds = NowSeconds() - start;
  if (common.json) {
    return PrintJson("sample", Json()
                                   .Set("output", flags.output)
                                   .Set("tokens", flags.tokens)
                                   .Set("bytes", text.size())
                                   .Set("seconds", seconds));
  }
  return Print(Format("%s: %llu tokens, %s, in %s\n", flags.output.c_str(),
                      static_cast<unsigned long long>(flags.tokens),
                      FormatBytes(text.size()).c_str(), FormatSeconds(seconds).c_str()));
}

}  // namespace

Runner AddSample(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<SampleFlags>();
  AddModelFlags(app, &flags->model, &flags->tokenizer);
  app.add_option("output,--output", flags->output, "Text file to write")->required();
  app.add_option("--tokens", flags->tokens, "Tokens at least, in whole documents")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 32))
      ->capture_default_str();
  app.add_option("--seed", flags->seed, "Seed of the sampling")->capture_default_str();
  app.add_option("--documents", flags->separator, "What stands between documents")
      ->capture_default_str();
  app.add_flag("--force", flags->force, "Replace an existing output");
  return [flags, &common] { return RunSample(*flags, common); };
}

}  // namespace edgewise::cli
