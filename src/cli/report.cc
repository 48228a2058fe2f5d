// edgewise report: one model in several formats, measured side by side, as a table and an HTML
// page.
#include "eval/report.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "base/file.h"
#include "base/process.h"
#include "base/strings.h"
#include "cli/command.h"
#include "cli/generation_flags.h"
#include "cli/output.h"
#include "cli/work_folder.h"
#include "compress/quantize/presets.h"
#include "pipeline/compare.h"
#include "text/document_separator.h"

namespace edgewise::cli {
namespace {

constexpr double kSpeedSeconds = 0.5;  // at least, for each speed: a small model's runs are short

struct ReportFlags {
  std::string model, output = "report.html", keep, save_text, formats, text, documents;
  uint64_t sample_tokens = 20000, seed = 1;
  bool force = false;
  CompareOptions options;
};

// Fills options.text from --text, or samples it from the model.
Status PrepareText(ReportFlags* flags, const Common& common) {
  CompareOptions& options = flags->options;
  options.windows.convention = TextConvention::kDocuments;
  options.windows.separator = flags->documents;
  if (!flags->text.empty()) {
    EW_TRY(options.text, ReadText(flags->text));
    options.text_source = std::filesystem::path(flags->text).filename().string();
    if (options.text.find(flags->documents) == std::string::npos) {
      options.windows.convention = TextConvention::kLlamaCpp;
    }
    return Ok{};
  }
  EngineOptions engine_options;
  engine_options.threads = common.Threads();
  engine_options.tokenizer_path = options.tokenizer_path;
  EW_TRY(const std::unique_ptr<Engine> engine, Engine::Load(flags->model, engine_options));
  EW_TRY(options.text, SampleText(engine.get(), flags->sample_tokens, flags->seed, flags->documents,
                                  common.progress));
  options.text_source = Format("%llu tokens sampled from the original at temperature 1, seed %llu",
                               static_cast<unsigned long long>(flags->sample_tokens),
                               static_cast<unsigned long long>(flags->seed));
  if (flags->save_text.empty()) return Ok{};
  EW_TRY(AtomicFile file, AtomicFile::Create(flags->save_text, flags->force));
  EW_TRY(file.Write(options.text));
  return file.Commit();
}

// The best compromise by a stated rule: the smallest variant whose mean KL stays below 0.02 nats.
const ReportRow* Recommended(const ReportData& data) {
  const ReportRow* best = nullptr;
  for (const ReportRow& row : data.rows) {
    if (row.base || !row.kl_mean || *row.kl_mean > 0.02) continue;
    if (!best || *row.file_bytes < *best->file_bytes) best = &row;
  }
  return best;
}

void Summarize(const ReportFlags& flags, ReportData* data) {
  data->title = std::filesystem::path(flags.model).filename().string();
  if (data->title.empty())
    data->title = std::filesystem::path(flags.model).parent_path().filename().string();
  data->summary =
      "Each variant was written by edgewise quantize without calibration data and measured against "
      "the original.";
  if (!flags.options.added.empty()) {
    data->summary += " Made before, and only measured here: ";
    std::vector<std::string> names;
    for (const std::string& path : flags.options.added) {
      names.push_back(std::filesystem::path(path).stem().string());
    }
    data->summary += Join(names, ", ") + ".";
  }
  if (const ReportRow* row = Recommended(*data)) {
    const ReportRow& base = data->rows.front();
    data->headline = {
        {"Smallest with KL below 0.02", row->name},
        {"Smaller", Format("%.2fx", static_cast<double>(*base.file_bytes) /
                                        static_cast<double>(*row->file_bytes))},
        {"Top-1 agreement", Format("%.1f %%", 100 * *row->top1_agreement)},
        {"Decode speed", Format("%.2fx", *row->decode_tokens_per_s / *base.decode_tokens_per_s)}};
  }
  data->versions.insert(data->versions.begin(), ReportFact{"edgewise", kVersion});
  std::string added;
  for (const std::string& path : flags.options.added) added += " --add " + path;
  data->commands = {Format("edgewise report %s --formats %s --output %s", flags.model.c_str(),
                           Join(flags.options.formats, ",").c_str(), flags.output.c_str()) +
                    added + (flags.text.empty() ? "" : " --text " + flags.text)};
  data->notes = {
      "Speeds are of this machine in this run; compare ratios between rows, not absolute figures "
      "between machines.",
      "Perplexity depends on the scoring convention and the text: compare the ratio."};
}

Status RunReport(ReportFlags& flags, const Common& common) {
  const double start = NowSeconds();
  flags.options.threads = common.Threads();
  if (!flags.formats.empty()) {
    flags.options.formats.clear();
    for (const std::string_view name : Split(flags.formats, ","))
      flags.options.formats.emplace_back(Trim(name));
  }
  for (const std::string& name : flags.options.formats) EW_TRY(FindPreset(name).In("--formats"));
  EW_TRY(AtomicFile page, AtomicFile::Create(flags.output, flags.force));
  EW_TRY(const WorkFolder folder, WorkFolder::Make("report", flags.keep));
  flags.options.folder = folder.path();
  flags.options.latency.min_seconds = kSpeedSeconds;
  EW_TRY(PrepareText(&flags, common));
  EW_TRY(ReportData data, Compare(flags.model, flags.options, common.progress));
  Summarize(flags, &data);
  EW_TRY(page.Write(ReportHtml(data)));
  EW_TRY(page.Commit());
  if (common.json) return PrintJson("report", ToJson(data).Set("output", flags.output));
  EW_TRY(Print(ReportText(data)));
  if (common.quiet) return Ok{};
  return Print(Format("\nwrote %s in %s\n", flags.output.c_str(),
                      FormatSeconds(NowSeconds() - start).c_str()));
}

}  // namespace

Runner AddReport(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<ReportFlags>();
  AddModelFlags(app, &flags->model, &flags->options.tokenizer_path);
  app.add_option("--add", flags->options.added,
                 "Model file to measure too, such as a pruned and healed one; as often as wanted")
      ->allow_extra_args(false);
  app.add_option("--output", flags->output, "HTML page to write")->capture_default_str();
  app.add_option("--formats", flags->formats, "Presets to compare, separated by commas")
      ->default_str(Join(flags->options.formats, ","));
  CLI::Option* text =
      app.add_option("--text", flags->text, "Text to measure on (default: sampled from the model)");
  app.add_option("--sample-tokens", flags->sample_tokens, "Tokens to sample without --text")
      ->capture_default_str()
      ->excludes(text);
  app.add_option("--seed", flags->seed, "Seed of the sampling")
      ->capture_default_str()
      ->excludes(text);
  app.add_option("--save-text", flags->save_text, "Keep the sampled text in this file")
      ->excludes(text);
  flags->documents = kDocumentSeparator;
  app.add_option("--documents", flags->documents,
                 "Separator of documents in the text; a text without it is scored in convention C")
      ->capture_default_str();
  app.add_option("--keep", flags->keep, "Keep the GGUF files in this folder");
  app.add_flag("--force", flags->force, "Replace existing output files");
  return [flags, &common] { return RunReport(*flags, common); };
}

}  // namespace edgewise::cli
