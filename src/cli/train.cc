// edgewise pretrain, finetune, distill: the weights of a model, learned from text or from a
// teacher.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <memory>

#include "base/strings.h"
#include "cli/command.h"
#include "cli/output.h"
#include "pipeline/train_model.h"

namespace edgewise::cli {
namespace {

// What a verb's model may be.
enum class Beginning : uint8_t { kConfig, kModel, kEither };

struct TrainFlags {
  TrainFlags(const char* name, Beginning from) : verb(name), beginning(from) {}
  const char* verb;
  Beginning beginning;
  std::string to = "f16", schedule = "cosine", precision = "bf16", divergence = "kl", format;
  TrainJob job;
};

Status ReadNames(TrainFlags& flags) {
  TrainJob& job = flags.job;
  const auto type = DTypeFromName(flags.to);
  if (type != DType::kF32 && type != DType::kF16 && type != DType::kBF16) {
    return MakeError(Code::kInvalidArgument, "--to %s: f32, f16 and bf16 are known",
                     Quote(flags.to).c_str());
  }
  job.to = *type;
  EW_TRY(job.trainer.precision, train::ParsePrecision(flags.precision));
  EW_TRY(job.trainer.schedule.kind, train::ParseSchedule(flags.schedule).In("--schedule"));
  EW_TRY(job.loss.divergence, train::ParseDivergence(flags.divergence).In("--divergence"));
  if (!flags.format.empty()) {
    EW_TRY(job.format.format, train::ParseDatasetFormat(flags.format).In("--format"));
  }
  job.trainer.batch.seed = job.trainer.seed;
  return Ok{};
}

std::string Nats(double loss) {
  return Format("%.4f nats (perplexity %.4g)", loss, std::exp(loss));
}

// On stderr: what of the data was not learned.
void PrintBadRows(const TrainSummary& s) {
  if (s.bad_row_count == 0) return;
  for (const std::string& row : s.bad_rows) std::fprintf(stderr, "%s\n", row.c_str());
  std::fprintf(stderr, "%llu bad rows were left out\n",
               static_cast<unsigned long long>(s.bad_row_count));
}

void PrintPlan(const TrainSummary& s) {
  std::printf("%llu parameters, %llu documents of %llu tokens, %llu steps\n",
              static_cast<unsigned long long>(s.parameters),
              static_cast<unsigned long long>(s.documents),
              static_cast<unsigned long long>(s.tokens), static_cast<unsigned long long>(s.steps));
  std::printf("takes about %s of memory and %s (%.0f tokens/s)\n",
              FormatBytes(s.memory_bytes).c_str(), FormatSeconds(s.seconds).c_str(),
              s.tokens_per_s);
}

void PrintResult(const TrainSummary& s) {
  std::printf("%s: %s, %llu parameters, %llu steps in %s (%.0f tokens/s)\n", s.output.c_str(),
              FormatBytes(s.bytes).c_str(), static_cast<unsigned long long>(s.parameters),
              static_cast<unsigned long long>(s.steps), FormatSeconds(s.seconds).c_str(),
              s.tokens_per_s);
  std::printf("held-out loss %s", Nats(s.held_out_loss).c_str());
  if (s.resumed_steps == 0) std::printf(", before %.4f", s.first_loss);
  if (s.teacher_loss > 0) std::printf(", the teacher's %.4f", s.teacher_loss);
  std::printf("\n");
  if (s.skipped_steps > 0) {
    std::printf("%llu steps were left out: their gradients were not finite\n",
                static_cast<unsigned long long>(s.skipped_steps));
  }
}

// A config.json makes a new model, and only a new model is pretrained.
Status CheckBeginning(const TrainFlags& flags) {
  const bool wanted = flags.beginning == Beginning::kConfig;
  if (flags.beginning == Beginning::kEither || IsModelConfig(flags.job.model) == wanted) {
    return Ok{};
  }
  return MakeError(Code::kInvalidArgument,
                   wanted ? "%s: no config.json; `edgewise finetune` trains a model further"
                          : "%s: no model; `edgewise pretrain` trains a new one from a config.json",
                   flags.job.model.c_str());
}

Status RunTrain(TrainFlags& flags, const Common& common) {
  EW_TRY(CheckBeginning(flags));
  EW_TRY(ReadNames(flags));
  flags.job.threads = common.Threads();
  EW_TRY(const TrainSummary summary, TrainModel(flags.job, common.progress));
  if (common.json) return PrintJson(flags.verb, ToJson(summary));
  PrintBadRows(summary);
  if (flags.job.dry_run) {
    PrintPlan(summary);
  } else {
    PrintResult(summary);
  }
  return Ok{};
}

void AddBatchFlags(CLI::App& app, TrainFlags* flags) {
  train::TrainerOptions& trainer = flags->job.trainer;
  app.add_option("--batch-tokens", trainer.batch.tokens, "Tokens that are computed together")
      ->capture_default_str();
  app.add_option("--sequence", trainer.batch.sequence,
                 "Tokens of a sequence at most; longer documents are cut")
      ->capture_default_str();
  app.add_option("--accumulate", trainer.accumulation, "Batches of a step")->capture_default_str();
  app.add_option("--precision", flags->precision,
                 "Of the factors of products: bf16 or f32; sums and weights are F32")
      ->capture_default_str();
  app.add_flag("--recompute", trainer.network.recompute,
               "Keep one layer's activations in memory and compute the others twice");
}

void AddOptimizerFlags(CLI::App& app, TrainFlags* flags) {
  train::TrainerOptions& trainer = flags->job.trainer;
  app.add_option("--learning-rate", trainer.schedule.peak, "Of AdamW, at its peak")
      ->capture_default_str();
  app.add_option("--schedule", flags->schedule,
                 "How it falls: cosine, wsd (stays, then falls in the last fifth), constant")
      ->capture_default_str();
  app.add_option("--warmup", flags->job.warmup, "Share of the steps in which it rises")
      ->capture_default_str();
  app.add_option("--final", trainer.schedule.last, "What of it is left at the end")
      ->capture_default_str();
  app.add_option("--weight-decay", trainer.weight_decay, "Of matrices")->capture_default_str();
  app.add_option("--beta1", trainer.beta1, "Decay of the mean of gradients")->capture_default_str();
  app.add_option("--beta2", trainer.beta2, "Decay of the mean of their squares")
      ->capture_default_str();
  app.add_option("--clip", trainer.clip, "Largest norm of a gradient; 0: any")
      ->capture_default_str();
  app.add_option("--dropout", trainer.network.dropout, "Share of what each half layer adds")
      ->capture_default_str();
  app.add_option("--ema", trainer.ema,
                 "Write averaged weights, with this decay for each step; 0: the last ones")
      ->capture_default_str();
  app.add_option("--seed", trainer.seed, "Of the order of documents, first weights and dropout")
      ->capture_default_str();
}

void AddRunFlags(CLI::App& app, TrainFlags* flags) {
  TrainJob& job = flags->job;
  app.add_option("--steps", job.steps, "Steps in all; 0: as --epochs says")->capture_default_str();
  app.add_option("--epochs", job.epochs, "Passes over the text")->capture_default_str();
  app.add_option("--held-out", job.held_out,
                 "Data to measure on; without it the last fiftieth of the documents is held out");
  app.add_option("--format", flags->format,
                 "Of the data: text, jsonl, alpaca, dolly, sharegpt, chatml; without it as the "
                 "first good row has it");
  app.add_flag("--strict", job.format.strict, "A bad row is an error; without it it is left out");
  app.add_option("--evaluate-every", job.trainer.evaluate_every,
                 "Steps between measurements; 0: at the end only")
      ->capture_default_str();
  app.add_option("--patience", job.trainer.patience,
                 "Stop after so many measurements without a better one, and write the best; 0: "
                 "never")
      ->capture_default_str();
  app.add_option("--save-every", job.save_every, "Steps after which the state is kept for --resume")
      ->capture_default_str();
  app.add_option("--to", flags->to, "Format of the output: f32, f16 or bf16")
      ->capture_default_str();
  app.add_option("--qat", job.qat,
                 "Train through a quantizer, and write what was trained: a format or mixture that "
                 "`edgewise quantize` knows, as q3_k_m")
      ->excludes("--to");
  app.add_option("--tokenizer", job.tokenizer_path,
                 "Tokenizer file or folder, where the model does not bring one");
  app.add_flag("--resume", job.resume, "Go on with a run that was stopped");
  app.add_flag("--force", job.overwrite, "Replace the output, or begin anew");
  app.add_flag("--dry-run", job.dry_run,
               "Tell memory, steps and time by a trial, and write nothing");
}

// The options that all three verbs have, after the first argument.
void AddCommon(CLI::App& app, TrainFlags* flags) {
  app.add_option("data", flags->job.data,
                 "Text to learn from, with <|endoftext|> between documents, or JSON rows: texts, "
                 "instructions or conversations, whose answers are learned")
      ->required();
  app.add_option("output,--output", flags->job.out, "GGUF file to write")->required();
  AddRunFlags(app, flags);
  AddBatchFlags(app, flags);
  AddOptimizerFlags(app, flags);
}

void AddKeepZeros(CLI::App& app, TrainFlags* flags) {
  app.add_flag("--keep-zeros", flags->job.trainer.keep_zeros,
               "Weights of matrices that are zero stay zero: a pruned model keeps its pattern");
}

}  // namespace

Runner AddPretrain(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<TrainFlags>("pretrain", Beginning::kConfig);
  app.add_option("config", flags->job.model,
                 "config.json of the model, as Hugging Face writes it; its tokenizer lies beside "
                 "it, or --tokenizer names it")
      ->required();
  AddCommon(app, flags.get());
  return [flags, &common] { return RunTrain(*flags, common); };
}

Runner AddFinetune(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<TrainFlags>("finetune", Beginning::kModel);
  flags->job.trainer.schedule.peak = 1e-4;
  app.add_option("model", flags->job.model, "GGUF file, Hugging Face folder or llama2.c checkpoint")
      ->required();
  AddCommon(app, flags.get());
  AddKeepZeros(app, flags.get());
  return [flags, &common] { return RunTrain(*flags, common); };
}

Runner AddDistill(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<TrainFlags>("distill", Beginning::kEither);
  TrainJob& job = flags->job;
  app.add_option("teacher", job.teacher, "GGUF file, Hugging Face folder or llama2.c checkpoint")
      ->required();
  AddCommon(app, flags.get());
  app.add_option("--student", job.model,
                 "What learns: a smaller or pruned model, or a config.json for a new one, which "
                 "takes the teacher's tokenizer")
      ->required();
  app.add_option("--divergence", flags->divergence,
                 "From the teacher: kl, reverse-kl, jsd, skew-kl, skew-reverse-kl")
      ->capture_default_str();
  app.add_option("--alpha", job.loss.alpha,
                 "Share of it in the loss; the rest is the cross-entropy of the text")
      ->capture_default_str();
  app.add_option("--temperature", job.loss.temperature, "Of both distributions in it")
      ->capture_default_str();
  app.add_option("--beta", job.loss.beta, "The teacher's share of the mixture in jsd and skew-*")
      ->capture_default_str();
  AddKeepZeros(app, flags.get());
  return [flags, &common] { return RunTrain(*flags, common); };
}

}  // namespace edgewise::cli
