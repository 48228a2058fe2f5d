// edgewise audit: what compression changed in a model; `audit data`: what may have been planted in
// a training set.
#include "eval/audit.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>

#include "base/file.h"
#include "base/strings.h"
#include "cli/command.h"
#include "cli/generation_flags.h"
#include "cli/output.h"
#include "engine/engine.h"
#include "eval/audit_page.h"
#include "eval/data_audit.h"
#include "eval/training_set.h"

namespace edgewise::cli {
namespace {

struct ModelFlags {
  std::string base, model, tokenizer, file, documents, prompts, output;
  bool force = false;
  AuditOptions options;
};

struct DataFlags {
  std::string file, documents, model, tokenizer;
  size_t show = 20;  // findings of each detector; the JSON has all
  DataAuditOptions options;
};

Result<std::unique_ptr<Engine>> Load(const std::string& path, const std::string& tokenizer,
                                     const Common& common) {
  EngineOptions options;
  options.threads = common.Threads();
  options.tokenizer_path = tokenizer;
  return Engine::Load(path, options);
}

std::string FileName(const std::string& path) {
  const std::filesystem::path full(path);
  return (full.has_filename() ? full : full.parent_path()).filename().string();
}

AuditFacts Facts(const ModelFlags& flags) {
  AuditFacts facts;
  facts.title = FileName(flags.model) + " against " + FileName(flags.base);
  facts.versions = {{"edgewise", kVersion},
                    {"Base", flags.base},
                    {"Compressed", flags.model},
                    {"Text", flags.file}};
  facts.command = "edgewise audit " + flags.base + " " + flags.model + " --file " + flags.file;
  if (!flags.documents.empty()) facts.command += " --documents '" + flags.documents + "'";
  if (!flags.prompts.empty()) facts.command += " --prompts " + flags.prompts;
  return facts;
}

// Fills in what the flags leave to be read or chosen.
Status Prepare(ModelFlags* flags) {
  if (flags->base.empty() || flags->model.empty() || flags->file.empty()) {
    return Error{Code::kInvalidArgument,
                 "say what to compare and on which text: BASE COMPRESSED --file TEXT; or what to "
                 "look through: data FILE"};
  }
  TextOptions& text = flags->options.text;
  if (!flags->documents.empty()) {
    text.convention = TextConvention::kDocuments;
    text.separator = flags->documents;
  }
  if (flags->prompts.empty()) return Ok{};
  EW_TRY(flags->options.prompts, ReadText(flags->prompts));
  return Ok{};
}

Status RunModel(ModelFlags* flags, const Common& common) {
  EW_TRY(Prepare(flags));
  std::optional<AtomicFile> page;
  if (!flags->output.empty()) {
    EW_TRY(page, AtomicFile::Create(flags->output, flags->force));
  }
  EW_TRY(const std::string text, ReadText(flags->file));
  EW_TRY(const std::unique_ptr<Engine> base, Load(flags->base, flags->tokenizer, common));
  EW_TRY(const std::unique_ptr<Engine> model, Load(flags->model, flags->tokenizer, common));
  EW_TRY(
      const ModelAudit audit,
      AuditModel(base.get(), model.get(), text, flags->options, common.progress).In(flags->file));
  if (page) {
    EW_TRY(page->Write(AuditHtml(audit, Facts(*flags))));
    EW_TRY(page->Commit());
  }
  if (common.json) {
    Json object = ToJson(audit);
    if (page) object.Set("output", flags->output);
    return PrintJson("audit", object);
  }
  EW_TRY(Print(AuditText(audit)));
  if (common.quiet) return Ok{};
  std::string remarks = "\n";
  for (const std::string& limit : AuditLimits()) remarks += limit + "\n";
  if (page) remarks += "\nwrote " + flags->output + "\n";
  return Print(remarks);
}

Result<std::vector<TrainingExample>> ReadExamples(const DataFlags& flags) {
  EW_TRY(const std::string text, ReadText(flags.file));
  if (!flags.documents.empty()) {
    return ReadSeparatedTexts(text, flags.documents).In(flags.file);
  }
  Result<std::vector<TrainingExample>> examples = ReadJsonLines(text).In(flags.file);
  if (examples) return examples;
  Error error = std::move(examples).error();
  error.message += "; for plain text, give --documents SEPARATOR";
  return error;
}

// Findings of one detector; those with the same reason share an entry.
std::string FindingsText(const DataAudit& audit, const DetectorSummary& summary, size_t show) {
  if (!summary.ran) {
    return Format("%s: not looked for, it needs --model\n", DetectorName(summary.detector));
  }
  std::string text = Format("%s: %llu of %llu examples\n", DetectorName(summary.detector),
                            static_cast<unsigned long long>(summary.findings),
                            static_cast<unsigned long long>(audit.examples));
  std::map<std::string_view, uint64_t> same;
  for (const DataFinding& f : audit.findings) {
    if (f.detector == summary.detector) ++same[f.reason];
  }
  size_t shown = 0;
  for (const DataFinding& f : audit.findings) {
    const auto entry = f.detector == summary.detector ? same.find(f.reason) : same.end();
    if (entry == same.end()) continue;
    if (shown++ == show) {
      return text + Format("  and %zu more; --show N or --json gives them\n", same.size());
    }
    const std::string others =
        entry->second == 1
            ? ""
            : Format(" and %llu more", static_cast<unsigned long long>(entry->second - 1));
    text +=
        Format("  line %llu%s, score %.4g: %s\n      %s\n", static_cast<unsigned long long>(f.line),
               others.c_str(), f.score, f.reason.c_str(), f.excerpt.c_str());
    same.erase(entry);
  }
  return text;
}

Status RunData(const DataFlags& flags, const Common& common) {
  EW_TRY(const std::vector<TrainingExample> examples, ReadExamples(flags));
  std::unique_ptr<Engine> engine;
  if (!flags.model.empty()) {
    EW_TRY(engine, Load(flags.model, flags.tokenizer, common));
  }
  std::unique_ptr<ThreadPool> own;
  if (!engine) own = std::make_unique<ThreadPool>(common.Threads());
  ThreadPool* pool = engine ? &engine->pool() : own.get();
  EW_TRY(const DataAudit audit,
         AuditData(examples, flags.options, engine.get(), pool, common.progress).In(flags.file));
  if (common.json) return PrintJson("audit", ToJson(audit));
  std::string text;
  for (const DetectorSummary& summary : audit.detectors) {
    text += FindingsText(audit, summary, flags.show);
  }
  if (!common.quiet) {
    text +=
        "A finding is a reason to look, not a proof; what these detectors cannot see is in "
        "docs/audit.md.\n";
  }
  return Print(text);
}

Runner AddModels(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<ModelFlags>();
  app.add_option("base", flags->base, "The model before compression");
  app.add_option("compressed", flags->model, "The model after it");
  app.add_option("--tokenizer", flags->tokenizer,
                 "Tokenizer file, where the models do not bring one (llama2.c)");
  app.add_option("--file", flags->file, "Text to compare the models on");
  app.add_option("--documents", flags->documents,
                 "Compare one document per context; documents end with this separator");
  app.add_option(
      "--prompts", flags->prompts,
      "File of prompts, one a line, to find those whose behaviour changed most (default: "
      "windows or documents of the text)");
  app.add_option("--output", flags->output, "HTML page to write");
  app.add_flag("--force", flags->force, "Replace an existing page");
  TextOptions& text = flags->options.text;
  app.add_option("--ctx", text.context,
                 "Tokens per window (default: 512, or the trained context if smaller)");
  app.add_option("--bytes", text.max_bytes, "Use only the first bytes of the text");
  app.add_option("--windows", text.max_windows, "Use only the first windows or documents");
  app.add_option("--blame-windows", flags->options.blame_windows,
                 "Windows on which each part is tried alone; 0: not at all")
      ->capture_default_str();
  app.add_option("--probe-tokens", flags->options.probe_tokens,
                 "Tokens of each answer to the built-in probes; 0: no probes")
      ->capture_default_str();
  return [flags, &common] { return RunModel(flags.get(), common); };
}

Runner AddData(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<DataFlags>();
  app.add_option("file", flags->file, "Training set: JSON lines, or text with --documents")
      ->required();
  app.add_option("--documents", flags->documents,
                 "The file is plain text; examples end with this separator");
  CLI::Option* model = app.add_option("--model", flags->model,
                                      "Model that judges which words and responses do not belong");
  app.add_option("--tokenizer", flags->tokenizer,
                 "Tokenizer file, where the model does not bring one (llama2.c)")
      ->needs(model);
  app.add_option("--similarity", flags->options.near_duplicate,
                 "Least share of common word trigrams in near duplicates")
      ->capture_default_str();
  app.add_option("--words", flags->options.odd_word_words,
                 "Words to try of each example, with --model")
      ->capture_default_str();
  app.add_option("--show", flags->show,
                 "Findings to print of each detector, those for one reason as one")
      ->capture_default_str();
  return [flags, &common] { return RunData(*flags, common); };
}

}  // namespace

Runner AddAudit(CLI::App& app, const Common& common) {
  CLI::App* data = app.add_subcommand("data", "Look for planted and repeated examples in a file");
  data->footer(
      "Examples:\n  edgewise audit data train.jsonl\n"
      "  edgewise audit data stories.txt --documents '<|endoftext|>' --model stories-q4.gguf");
  const Runner run_models = AddModels(app, common), run_data = AddData(*data, common);
  return [data, run_models, run_data] { return data->parsed() ? run_data() : run_models(); };
}

}  // namespace edgewise::cli
