// edgewise eval: perplexity of a model, or its divergence from a base model, on a text; accuracy in
// multiple choice.
#include <CLI/CLI.hpp>
#include <memory>

#include "base/strings.h"
#include "cli/command.h"
#include "cli/generation_flags.h"
#include "cli/output.h"
#include "engine/engine.h"
#include "eval/choices.h"
#include "eval/kl.h"
#include "eval/perplexity.h"
#include "eval/windows.h"

namespace edgewise::cli {
namespace {

struct EvalFlags {
  std::string model, tokenizer, perplexity, base, text, choices, convention = "C", documents;
  std::string kv = "f16";
  TextOptions windows;
};

Result<TextOptions> Windows(const EvalFlags& flags) {
  TextOptions options = flags.windows;
  EW_TRY(options.kv_format, KvFormatFromName(flags.kv));
  if (!flags.documents.empty()) {
    options.convention = TextConvention::kDocuments;
    options.separator = flags.documents;
    return options;
  }
  EW_TRY(options.convention, ParseConvention(flags.convention).In("--convention"));
  return options;
}

Result<std::unique_ptr<Engine>> Load(const std::string& path, const EvalFlags& flags,
                                     const Common& common) {
  EngineOptions options;
  options.threads = common.Threads();
  options.tokenizer_path = flags.tokenizer;
  return Engine::Load(path, options);
}

Status PrintPerplexity(const PerplexityResult& r, const Common& common) {
  if (common.json) return PrintJson("eval", ToJson(r));
  std::string text = Format(
      "perplexity %.4f +- %.4f  (nll %.5f; %llu tokens in %llu windows of %u; convention %s; %s)\n",
      r.perplexity, r.perplexity_stderr, r.nll, static_cast<unsigned long long>(r.tokens),
      static_cast<unsigned long long>(r.windows), r.context, r.convention.c_str(),
      FormatSeconds(r.seconds).c_str());
  if (r.unused_tokens > 0 && !common.quiet) {
    text += Format("%llu tokens of the text belong to no whole window and were not scored\n",
                   static_cast<unsigned long long>(r.unused_tokens));
  }
  return Print(text);
}

Status PrintKl(const KlResult& r, const Common& common) {
  if (common.json) return PrintJson("eval", ToJson(r));
  return Print(
      Format("KL divergence   mean %.6f +- %.6f, p90 %.6f, p99 %.6f, max %.6f nats\n"
             "top-1 agreement %.3f %% +- %.3f\n"
             "RMS delta p     %.3f %% +- %.3f\n"
             "perplexity      %.4f, base %.4f, ratio %.5f +- %.5f\n"
             "%llu tokens in %llu windows of %u; convention %s; %s\n",
             r.kl.mean, r.kl.std_error, r.kl_p90, r.kl_p99, r.kl_max, 100 * r.top1_agreement.mean,
             100 * r.top1_agreement.std_error, r.rms_delta_p.mean, r.rms_delta_p.std_error,
             r.perplexity, r.base_perplexity, r.ppl_ratio.mean, r.ppl_ratio.std_error,
             static_cast<unsigned long long>(r.tokens), static_cast<unsigned long long>(r.windows),
             r.context, r.convention.c_str(), FormatSeconds(r.seconds).c_str()));
}

Status PrintChoices(const ChoicesResult& r, const Common& common) {
  if (common.json) return PrintJson("eval", ToJson(r));
  return Print(
      Format("accuracy            %.2f %% (95 %% interval %.2f to %.2f)\n"
             "accuracy per byte   %.2f %% (%.2f to %.2f)\n"
             "loss of the answer  %.4f nats\n"
             "%llu questions, %llu tokens scored; %s\n",
             100 * r.accuracy, 100 * r.accuracy_low, 100 * r.accuracy_high,
             100 * r.accuracy_per_byte, 100 * r.accuracy_per_byte_low,
             100 * r.accuracy_per_byte_high, r.loss, static_cast<unsigned long long>(r.questions),
             static_cast<unsigned long long>(r.tokens), FormatSeconds(r.seconds).c_str()));
}

Status RunEval(const EvalFlags& flags, const Common& common) {
  EW_TRY(const TextOptions windows, Windows(flags));
  if (flags.perplexity.empty() && flags.base.empty() && flags.choices.empty()) {
    return Error{
        Code::kInvalidArgument,
        "say what to measure: --perplexity FILE, --kl BASE --text FILE, or --choices FILE"};
  }
  if (!flags.choices.empty()) {
    EW_TRY(const std::string text, ReadText(flags.choices));
    EW_TRY(const std::vector<Question> questions, ParseQuestions(text).In(flags.choices));
    EW_TRY(const std::unique_ptr<Engine> engine, Load(flags.model, flags, common));
    EW_TRY(
        const ChoicesResult result,
        MeasureChoices(engine.get(), questions, {.kv_format = windows.kv_format}, common.progress)
            .In(flags.choices));
    return PrintChoices(result, common);
  }
  if (!flags.perplexity.empty()) {
    EW_TRY(const std::string text, ReadText(flags.perplexity));
    EW_TRY(const std::unique_ptr<Engine> engine, Load(flags.model, flags, common));
    EW_TRY(const PerplexityResult result,
           MeasurePerplexity(engine.get(), text, windows, common.progress).In(flags.perplexity));
    return PrintPerplexity(result, common);
  }
  if (flags.text.empty())
    return Error{Code::kInvalidArgument, "--kl needs --text FILE to compare the models on"};
  EW_TRY(const std::string text, ReadText(flags.text));
  EW_TRY(const std::unique_ptr<Engine> base, Load(flags.base, flags, common));
  EW_TRY(const std::unique_ptr<Engine> model, Load(flags.model, flags, common));
  EW_TRY(const KlResult result,
         MeasureKl(base.get(), model.get(), text, windows, common.progress).In(flags.text));
  return PrintKl(result, common);
}

}  // namespace

Runner AddEval(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<EvalFlags>();
  AddModelFlags(app, &flags->model, &flags->tokenizer);
  CLI::Option* perplexity =
      app.add_option("--perplexity", flags->perplexity, "Text file to measure perplexity on");
  CLI::Option* base =
      app.add_option("--kl", flags->base, "Base model to measure the divergence from")
          ->excludes(perplexity);
  CLI::Option* choices =
      app.add_option("--choices", flags->choices,
                     "Questions to measure accuracy on: lines of {\"prompt\", \"choices\", "
                     "\"answer\"}, the answer an index from 0")
          ->excludes(perplexity)
          ->excludes(base);
  app.add_option("--text", flags->text, "Text file for --kl")
      ->excludes(perplexity)
      ->excludes(choices);
  CLI::Option* convention =
      app.add_option(
             "--convention", flags->convention,
             "A: every position of disjoint windows (Hugging Face); C: second halves (llama.cpp)")
          ->capture_default_str()
          ->excludes(choices);
  app.add_option("--documents", flags->documents,
                 "Score one document per context; documents end with this separator")
      ->excludes(convention)
      ->excludes(choices);
  app.add_option("--ctx", flags->windows.context,
                 "Tokens per window (default: A 2048, C 512, or the trained context)")
      ->excludes(choices);
  app.add_option("--bytes", flags->windows.max_bytes, "Use only the first bytes of the text")
      ->excludes(choices);
  app.add_option("--windows", flags->windows.max_windows, "Use only the first windows or documents")
      ->excludes(choices);
  app.add_option("--skip-bytes", flags->windows.skip_bytes,
                 "Leave out documents of at most this many bytes")
      ->capture_default_str()
      ->excludes(choices);
  AddKvFlag(app, &flags->kv);
  return [flags, &common] { return RunEval(*flags, common); };
}

}  // namespace edgewise::cli
