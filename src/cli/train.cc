// edgewise pretrain, finetune, distill: the weights of a model, learned from text or from a
// teacher.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <memory>
#include <utility>

#include "base/strings.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "pipeline/cache_teacher.h"
#include "pipeline/find_learning_rate.h"
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
  std::string moments = "f32";
  std::string engine = "floats";
  bool find_learning_rate = false;
  TrainJob job;
};

Status ReadFormat(const std::string& name, train::DatasetOptions* options) {
  if (name.empty()) return Ok{};
  EW_TRY(options->format, train::ParseDatasetFormat(name).In("--format"));
  return Ok{};
}

Status ReadNames(TrainFlags& flags) {
  TrainJob& job = flags.job;
  const auto type = DTypeFromName(flags.to);
  if (type != DType::kF32 && type != DType::kF16 && type != DType::kBF16) {
    return MakeError(Code::kInvalidArgument, "--to %s: f32, f16 and bf16 are known",
                     Quote(flags.to).c_str());
  }
  job.to = *type;
  EW_TRY(job.trainer.precision, train::ParsePrecision(flags.precision));
  EW_TRY(job.trainer.moments, train::ParseMomentFormat(flags.moments).In("--moments"));
  EW_TRY(job.trainer.schedule.kind, train::ParseSchedule(flags.schedule).In("--schedule"));
  EW_TRY(job.loss.divergence, train::ParseDivergence(flags.divergence).In("--divergence"));
  EW_TRY(job.teacher_engine, ParseTeacherEngine(flags.engine).In("--teacher-engine"));
  EW_TRY(ReadFormat(flags.format, &job.format));
  job.trainer.batch.seed = job.trainer.seed;
  return Ok{};
}

std::string Nats(double loss) {
  return Format("%.4f nats (perplexity %.4g)", loss, std::exp(loss));
}

// On stderr: what of the data was not learned.
void PrintBadRows(uint64_t count, const std::vector<std::string>& first) {
  if (count == 0) return;
  for (const std::string& row : first) std::fprintf(stderr, "%s\n", row.c_str());
  std::fprintf(stderr, "%llu bad rows were left out\n", static_cast<unsigned long long>(count));
}

// What each layer gives, against its teacher's.
void PrintLayers(const TrainSummary& s) {
  std::printf("layer  error before  after, of the teacher's outputs\n");
  for (const Json& layer : s.layers) {
    const auto number = [&](const char* key) { return layer.Find(key)->AsDouble().value_or(0); };
    const bool learned = layer.Find("learned")->AsBool().value_or(true);
    std::printf("%5.0f  %10.3f %%  %.3f %%%s\n", number("layer"), 100 * number("first_error"),
                100 * number("error"), learned ? "" : ", so it stays as it was");
  }
}

void PrintPlan(const TrainSummary& s) {
  std::printf("%llu parameters, %llu of them learned, %llu documents of %llu tokens, %llu steps\n",
              static_cast<unsigned long long>(s.parameters),
              static_cast<unsigned long long>(s.trainable_parameters),
              static_cast<unsigned long long>(s.documents),
              static_cast<unsigned long long>(s.tokens), static_cast<unsigned long long>(s.steps));
  std::printf("takes about %s of memory and %s (%.0f tokens/s)\n",
              FormatBytes(s.memory_bytes).c_str(), FormatSeconds(s.seconds).c_str(),
              s.tokens_per_s);
  if (s.disk_bytes == 0) return;
  std::printf("layer by layer: steps and tokens/s are those of a layer; %s of disk while it runs\n",
              FormatBytes(s.disk_bytes).c_str());
}

void PrintResult(const TrainSummary& s) {
  if (!s.layers.empty()) PrintLayers(s);
  std::printf("%s: %s, %llu parameters, %llu steps in %s (%.0f tokens/s)\n", s.output.c_str(),
              FormatBytes(s.bytes).c_str(), static_cast<unsigned long long>(s.parameters),
              static_cast<unsigned long long>(s.steps), FormatSeconds(s.seconds).c_str(),
              s.tokens_per_s);
  std::printf("held-out loss %s", Nats(s.held_out_loss).c_str());
  if (s.first_loss > 0) std::printf(", before %.4f", s.first_loss);
  if (s.teacher_loss > 0) std::printf(", the teacher's %.4f", s.teacher_loss);
  std::printf("\n");
  if (s.held_out_kl) {
    std::printf("held-out KL divergence from the teacher %.5f nats", *s.held_out_kl);
    if (s.first_kl) std::printf(", before %.5f", *s.first_kl);
    std::printf("\n");
  }
  if (s.draft) {
    std::printf(
        "as a drafter of the teacher: %llu of %llu guesses right (%.0f %%), decoding %.2f "
        "times as fast (%llu tokens after %llu held-out beginnings)\n",
        static_cast<unsigned long long>(s.draft->accepted),
        static_cast<unsigned long long>(s.draft->drafted), 100 * s.draft->acceptance(),
        s.draft->speed_up(), static_cast<unsigned long long>(s.draft->tokens),
        static_cast<unsigned long long>(s.draft->prompts));
  }
  if (!s.kept.empty()) std::printf("models on the way: %s\n", Join(s.kept, ", ").c_str());
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

Status RunFindLearningRate(const TrainFlags& flags, const Common& common) {
  EW_TRY(const LearningRateReport report, FindLearningRate(flags.job, common.progress));
  if (train::OrAlone(flags.job.trainer.processes).rank() != 0) return Ok{};
  if (common.json) return PrintJson(flags.verb, ToJson(report));
  const size_t lines = 20;
  const size_t every = std::max<size_t>(1, report.steps.size() / lines);
  std::printf("learning rate  loss\n");
  for (size_t i = 0; i < report.steps.size(); i += every) {
    std::printf("%-13.3g  %.4f\n", report.steps[i].learning_rate, report.steps[i].loss);
  }
  std::printf("%s; the loss was least at %.2g\nsuggested: --learning-rate %.2g\n",
              report.broke_out ? "then the loss broke out" : "the loss never broke out",
              report.lowest_at, report.suggested);
  return Ok{};
}

Status RunTrain(TrainFlags& flags, const Common& common) {
  EW_TRY(CheckBeginning(flags));
  EW_TRY(ReadNames(flags));
  const InterruptScope interrupt;  // the first SIGINT keeps the state after the step in work
  flags.job.threads = common.Threads();
  if (flags.find_learning_rate) return RunFindLearningRate(flags, common);
  EW_TRY(const TrainSummary summary, TrainModel(flags.job, common.progress));
  if (train::OrAlone(flags.job.trainer.processes).rank() != 0) return Ok{};
  if (common.json) return PrintJson(flags.verb, ToJson(summary));
  PrintBadRows(summary.bad_row_count, summary.bad_rows);
  if (flags.job.dry_run) {
    PrintPlan(summary);
  } else {
    PrintResult(summary);
  }
  return Ok{};
}

// Runs `run` in each process that was started. They fail together, and rank 0 tells it: the others
// end as if all were well, because their exit code could make the launcher end rank 0 before.
Status RunTogether(TrainFlags* flags, FunctionRef<Status()> run) {
  EW_TRY(const auto processes, train::JoinProcesses());
  flags->job.trainer.processes = processes.get();
  Status status = run();
  return processes->rank() == 0 ? std::move(status) : Status(Ok{});
}

void AddBatchFlags(CLI::App& app, TrainFlags* flags) {
  train::TrainerOptions& trainer = flags->job.trainer;
  app.add_option("--batch-tokens", trainer.batch.tokens, "Tokens that are computed together")
      ->capture_default_str();
  app.add_option("--sequence", trainer.batch.sequence,
                 "Tokens of a sequence at most; longer documents are cut")
      ->capture_default_str();
  app.add_option("--accumulate", trainer.accumulation,
                 "Batches of a step; processes that mpirun started share them")
      ->capture_default_str();
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
  app.add_option("--moments", flags->moments,
                 "Format of these two means: f32, or 8bit, which takes a quarter of their memory")
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

void AddFormat(CLI::App& app, std::string* format, bool* strict) {
  app.add_option(
      "--format", *format,
      "Of the data: text, jsonl, alpaca, dolly, completion, sharegpt, chatml; without it as the "
      "first good row has it");
  app.add_flag("--strict", *strict, "A bad row is an error; without it it is left out");
}

void AddResume(CLI::App& app, bool* resume, bool* overwrite) {
  app.add_flag("--resume", *resume, "Go on with a run that was stopped");
  app.add_flag("--force", *overwrite, "Replace the output, or begin anew");
}

void AddRunFlags(CLI::App& app, TrainFlags* flags) {
  TrainJob& job = flags->job;
  app.add_option("--steps", job.steps, "Steps in all; 0: as --epochs says")->capture_default_str();
  app.add_option("--epochs", job.epochs, "Passes over the text")->capture_default_str();
  app.add_option("--held-out", job.held_out,
                 "Data to measure on; without it the last fiftieth of the documents is held out");
  AddFormat(app, &flags->format, &job.format.strict);
  app.add_option("--evaluate-every", job.trainer.evaluate_every,
                 "Steps between measurements; 0: at the end only")
      ->capture_default_str();
  app.add_option("--patience", job.trainer.patience,
                 "Stop after so many measurements without a better one, of the loss or with a "
                 "teacher of the divergence from it, and write the best; 0: never")
      ->capture_default_str();
  app.add_option("--save-every", job.save_every, "Steps after which the state is kept for --resume")
      ->capture_default_str();
  CLI::Option* keep = app.add_option("--keep-every", job.keep_every,
                                     "Steps after which the model is written too, to "
                                     "NAME.step-N.gguf for OUTPUT NAME.gguf; 0: at the end only")
                          ->capture_default_str();
  app.add_option("--keep-last", job.keep_last, "Of these models, older ones are removed; 0: all")
      ->capture_default_str()
      ->needs(keep);
  app.add_option("--to", flags->to, "Format of the output: f32, f16 or bf16")
      ->capture_default_str();
  app.add_option("--qat", job.qat,
                 "Train through a quantizer, and write what was trained: a format or mixture that "
                 "`edgewise quantize` knows, as q3_k_m")
      ->excludes("--to");
  app.add_option("--tokenizer", job.tokenizer_path,
                 "Tokenizer file or folder, where the model does not bring one");
  AddResume(app, &job.resume, &job.overwrite);
  CLI::Option* dry_run = app.add_flag("--dry-run", job.dry_run,
                                      "Tell memory, steps and time by a trial, and write nothing");
  app.add_flag("--find-learning-rate", flags->find_learning_rate,
               "Let the learning rate rise from 1e-6 to 1 in --steps steps (default 100), tell the "
               "losses and which rate to take, and write nothing")
      ->excludes(dry_run);
}

CLI::Option* AddData(CLI::App& app, std::string* data) {
  return app.add_option("data", *data,
                        "Text to learn from, with <|endoftext|> between documents, or JSON rows: "
                        "texts, instructions or conversations, whose answers are learned");
}

// The options that all three verbs have, after the first argument.
void AddCommon(CLI::App& app, TrainFlags* flags, bool required = true) {
  AddData(app, &flags->job.data)->required(required);
  app.add_option("output,--output", flags->job.out, "GGUF file to write")->required(required);
  AddRunFlags(app, flags);
  AddBatchFlags(app, flags);
  AddOptimizerFlags(app, flags);
}

void AddKeepZeros(CLI::App& app, TrainFlags* flags) {
  app.add_flag("--keep-zeros", flags->job.trainer.network.keep_zeros,
               "Weights of matrices that are zero stay zero: a pruned model keeps its pattern");
}

void AddLora(CLI::App& app, TrainFlags* flags) {
  train::LoraOptions& lora = flags->job.trainer.network.lora;
  CLI::Option* rank = app.add_option("--lora-rank", lora.rank,
                                     "Learn adapters of this rank and merge them at the end; all "
                                     "other weights stay, in the file's "
                                     "format (LoRA, QLoRA)")
                          ->check(CLI::Range(1, 65536));
  app.add_option("--lora-alpha", lora.alpha, "What adapters add is scaled by this / rank")
      ->capture_default_str()
      ->needs(rank);
  app.add_option("--lora-dropout", lora.dropout, "Share of the adapters' inputs")
      ->capture_default_str()
      ->needs(rank);
  app.add_option("--lora-targets", lora.targets,
                 "Matrices that have one: of q, k, v, o, gate, up, down, and qkv, gate_up where a "
                 "file keeps these in one; without it all")
      ->delimiter(',')
      ->needs(rank);
  app.add_option("--lora-out", flags->job.lora_out,
                 "Write the adapters apart too: to a folder as PEFT has it, or to a GGUF of "
                 "llama.cpp where the name ends in .gguf; may be repeated")
      ->allow_extra_args(false)
      ->needs(rank);
}

void AddScales(CLI::App& app, TrainFlags* flags) {
  app.add_flag("--learn-scales", flags->job.learn_scales,
               "With --qat: learn the scales and offsets of blocks beside the weights, in place of "
               "fitting them in each step (LSQ)")
      ->needs("--qat");
  app.add_flag("--scales-only", flags->job.scales_only,
               "Learn the scales and offsets of a quantized model's blocks and nothing else; its "
               "codes and formats stay (EfficientQAT's second phase)");
}

void AddLayerwise(CLI::App& app, TrainFlags* flags) {
  app.add_flag("--layerwise", flags->job.layerwise,
               "Learn layer by layer to give what the teacher's layers give, with one layer in "
               "memory (EfficientQAT's first phase); steps and epochs are those of each layer");
}

// Finds options beside which `option` makes no sense. Errors: kInvalidArgument.
Status CheckBeside(const CLI::App& app, const char* option,
                   std::initializer_list<const char*> others) {
  for (const char* other : others) {
    if (app.count(option) == 0 || app.count(other) == 0) continue;
    return MakeError(Code::kInvalidArgument, "%s and %s exclude each other; leave one of them out",
                     option, other);
  }
  return Ok{};
}
Status CheckScalesOnly(const CLI::App& app) {
  return CheckBeside(app, "--scales-only", {"--qat", "--to", "--lora-rank", "--keep-zeros"});
}
Status CheckLayerwise(const CLI::App& app) {
  return CheckBeside(app, "--layerwise", {"--cache",        "--teacher-engine",     "--divergence",
                                          "--alpha",        "--temperature",        "--beta",
                                          "--draft",        "--lora-rank",          "--ema",
                                          "--patience",     "--evaluate-every",     "--save-every",
                                          "--keep-every",   "--accumulate",         "--dropout",
                                          "--recompute",    "--find-learning-rate", "--scales-only",
                                          "--match-hidden", "--match-attention",    "--on-policy"});
}

constexpr const char* kModelKinds = "GGUF file, Hugging Face folder or llama2.c checkpoint";
constexpr const char* kEngines =
    "What runs the teacher: floats, with all weights in F32, or runtime, with weights as they are "
    "stored, which takes far less memory";

void AddLiveTeacher(CLI::App& app, TrainJob* job) {
  app.add_option("--match-hidden", job->match.hidden,
                 "Weight of the difference between hidden states of student and teacher (TinyBERT)")
      ->capture_default_str();
  app.add_option("--match-attention", job->match.attention,
                 "Weight of the difference between their relations of queries, keys and values in "
                 "the last layer (MiniLMv2)")
      ->capture_default_str();
  train::OnPolicyOptions& written = job->trainer.on_policy;
  CLI::Option* fraction =
      app.add_option("--on-policy", written.fraction,
                     "Share of the sequences whose end the student writes and the teacher judges "
                     "(GKD)")
          ->capture_default_str();
  app.add_option("--on-policy-tokens", written.tokens, "Tokens that it writes of each, at most")
      ->capture_default_str()
      ->needs(fraction);
}

// With a cache DATA and OUTPUT are all, and the first of them stands where a teacher would.
Status PlaceArguments(TrainJob* job) {
  if (!job->cache.empty() && (job->data.empty() || job->out.empty())) {
    if (job->out.empty()) job->out = std::exchange(job->data, "");
    job->data = std::exchange(job->teacher, "");
  }
  const bool whole = !job->data.empty() && !job->out.empty() && !job->model.empty();
  if (whole && job->teacher.empty() != job->cache.empty()) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "give TEACHER DATA OUTPUT, or DATA OUTPUT with --cache FILE in place of the "
                   "teacher; and --student MODEL");
}

Runner AddLearn(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<TrainFlags>("distill", Beginning::kEither);
  TrainJob& job = flags->job;
  app.add_option("teacher", job.teacher, std::string(kModelKinds) + "; left out with --cache");
  AddCommon(app, flags.get(), false);
  app.add_option("--student", job.model,
                 "What learns: a smaller or pruned model, or a config.json for a new one, which "
                 "takes the teacher's tokenizer");
  app.add_option("--cache", job.cache,
                 "What `edgewise distill cache` kept of a teacher, in place of it");
  app.add_option("--teacher-engine", flags->engine, kEngines)->capture_default_str();
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
  AddLiveTeacher(app, &job);
  AddKeepZeros(app, flags.get());
  app.add_flag("--draft", job.draft,
               "Measure the result as a drafter that guesses tokens for the teacher: how many are "
               "right, and how much faster the teacher writes");
  AddLora(app, flags.get());
  AddScales(app, flags.get());
  AddLayerwise(app, flags.get());
  return [flags, &app, &common] {
    return RunTogether(flags.get(), [&]() -> Status {
      EW_TRY(CheckScalesOnly(app));
      EW_TRY(CheckLayerwise(app));
      EW_TRY(PlaceArguments(&flags->job));
      return RunTrain(*flags, common);
    });
  };
}

struct CacheFlags {
  std::string engine = "floats", precision = "bf16", format;
  CacheTeacherJob job;
};

Status RunCache(CacheFlags& flags, const Common& common) {
  EW_TRY(const auto processes, train::JoinProcesses());
  if (processes->size() > 1) {
    if (processes->rank() != 0) return Ok{};
    return MakeError(Code::kUnsupported,
                     "one process makes a cache; several may learn from it together");
  }
  CacheTeacherJob& job = flags.job;
  EW_TRY(job.options.engine, ParseTeacherEngine(flags.engine).In("--teacher-engine"));
  EW_TRY(job.options.precision, train::ParsePrecision(flags.precision));
  EW_TRY(ReadFormat(flags.format, &job.format));
  job.threads = common.Threads();
  EW_TRY(const CacheTeacherSummary s, CacheTeacher(job, common.progress));
  if (common.json) return PrintJson("distill", ToJson(s));
  PrintBadRows(s.bad_row_count, s.bad_rows);
  std::printf("%s: %llu tokens of %llu documents, %llu bytes each, %s\n", s.output.c_str(),
              static_cast<unsigned long long>(s.targets),
              static_cast<unsigned long long>(s.documents),
              static_cast<unsigned long long>(s.record_bytes), FormatBytes(s.bytes).c_str());
  std::printf(
      "%s%s with %s (%.0f tokens/s)\n", job.dry_run ? "takes about " : "",
      (job.dry_run ? FormatBytes(s.memory_bytes) + " of memory and " + FormatSeconds(s.seconds)
                   : FormatSeconds(s.seconds))
          .c_str(),
      s.engine.c_str(), s.tokens_per_s);
  return Ok{};
}

Runner AddCache(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<CacheFlags>();
  CacheTeacherJob& job = flags->job;
  app.add_option("teacher", job.teacher, kModelKinds)->required();
  AddData(app, &job.data)->required();
  app.add_option("output,--output", job.out, "Cache to write")->required();
  app.add_option("--top", job.top_k,
                 "Most probable tokens that are kept of each distribution; the others' mass is "
                 "kept as one")
      ->capture_default_str();
  app.add_option("--temperature", job.temperature, "Of the distributions, as it will be learned")
      ->capture_default_str();
  app.add_option("--sequence", job.options.batch.sequence,
                 "Tokens of a sequence at most, as they will be learned; longer documents are cut")
      ->capture_default_str();
  app.add_option("--batch-tokens", job.options.batch.tokens, "Tokens that are computed together")
      ->capture_default_str();
  app.add_option("--teacher-engine", flags->engine, kEngines)->capture_default_str();
  app.add_option("--precision", flags->precision, "Of the factors of products in floats: bf16, f32")
      ->capture_default_str();
  AddFormat(app, &flags->format, &job.format.strict);
  app.add_option("--tokenizer", job.tokenizer_path,
                 "Tokenizer file or folder, where the teacher does not bring one");
  AddResume(app, &job.resume, &job.overwrite);
  app.add_flag("--dry-run", job.dry_run,
               "Tell size, memory and time by a trial, and write nothing");
  return [flags, &common] { return RunCache(*flags, common); };
}

}  // namespace

Runner AddPretrain(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<TrainFlags>("pretrain", Beginning::kConfig);
  app.add_option("config", flags->job.model,
                 "config.json of the model, as Hugging Face writes it; its tokenizer lies beside "
                 "it, or --tokenizer names it")
      ->required();
  AddCommon(app, flags.get());
  return [flags, &common] {
    return RunTogether(flags.get(), [&] { return RunTrain(*flags, common); });
  };
}

Runner AddFinetune(CLI::App& app, const Common& common) {
  auto flags = std::make_shared<TrainFlags>("finetune", Beginning::kModel);
  flags->job.trainer.schedule.peak = 1e-4;
  app.add_option("model", flags->job.model, "GGUF file, Hugging Face folder or llama2.c checkpoint")
      ->required();
  AddCommon(app, flags.get());
  AddKeepZeros(app, flags.get());
  AddLora(app, flags.get());
  AddScales(app, flags.get());
  return [flags, &app, &common] {
    return RunTogether(flags.get(), [&]() -> Status {
      EW_TRY(CheckScalesOnly(app));
      return RunTrain(*flags, common);
    });
  };
}

Runner AddDistill(CLI::App& app, const Common& common) {
  CLI::App* cache =
      app.add_subcommand("cache", "Keep what a teacher says of each token, to learn from later");
  cache->footer(
      "Examples:\n  edgewise distill cache teacher.gguf text.txt text.cache\n"
      "  edgewise distill cache teacher-q4.gguf text.txt text.cache --top 128 --temperature 2 "
      "--resume");
  const Runner learn = AddLearn(app, common), keep = AddCache(*cache, common);
  return [cache, learn, keep] { return cache->parsed() ? keep() : learn(); };
}

}  // namespace edgewise::cli
