#include "pipeline/train_model.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/file.h"
#include "base/process.h"
#include "base/sha256.h"
#include "base/strings.h"
#include "compress/quantize/presets.h"
#include "kernels/kernels.h"
#include "model/lora_adapter.h"
#include "model/lora_file.h"
#include "pipeline/output_path.h"
#include "pipeline/run_journal.h"
#include "pipeline/train_inputs.h"
#include "pipeline/training_page.h"
#include "pipeline/write_model.h"
#include "train/fake_quantizer.h"
#include "train/lora.h"
#include "train/loss.h"
#include "train/network.h"
#include "train/parameters.h"
#include "train/weights.h"

namespace edgewise {
namespace {

using train::TrainerState;

constexpr uint64_t kMaxLogBytes = uint64_t{1} << 30;
constexpr size_t kMaxBatch = 1u << 24;
constexpr uint64_t kMaxSteps = uint64_t{1} << 32;
constexpr size_t kMaxParameters = size_t{1} << 37;  // more than any machine's memory holds
constexpr double kSaveSeconds = 300;  // a state is never older, however long steps take

std::string LogPath(const std::string& out) { return out + ".log.jsonl"; }
std::string PagePath(const std::string& out) { return out + ".log.html"; }
// An adapter is a GGUF or a folder.
Status CheckAdapterOutput(const TrainJob& job, const std::string& path, bool overwrite) {
  if (path == job.out) {
    return MakeError(Code::kInvalidArgument, "%s: the model and its adapter need a path each",
                     path.c_str());
  }
  if (path.ends_with(".gguf")) return CheckOutput(job.model, path, overwrite);
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return Ok{};
  if (!IsDirectory(path)) {
    return MakeError(Code::kInvalidArgument,
                     "%s: is a file; an adapter is written to a folder, or to a name that ends in "
                     ".gguf",
                     path.c_str());
  }
  if (overwrite) return Ok{};
  return MakeError(Code::kInvalidArgument, "%s: exists already; pass --force to replace it",
                   path.c_str());
}

// The output is none of the files that are read, and replaces one only where that is wanted.
Status CheckOutputs(const TrainJob& job) {
  const bool going_on = job.resume && FileExists(JournalFolder(job.out));
  for (const std::string* input :
       {&job.model, &job.teacher, &job.cache, &job.data, &job.held_out}) {
    if (input->empty()) continue;
    for (const std::string& output : {job.out, LogPath(job.out), PagePath(job.out)}) {
      EW_TRY(CheckOutput(*input, output, job.overwrite || going_on));
    }
  }
  for (const std::string& path : job.lora_out) {
    EW_TRY(CheckAdapterOutput(job, path, job.overwrite || going_on));
  }
  return Ok{};
}

uint64_t LearnedTokens(const train::Corpus& corpus) {
  uint64_t count = 0;
  for (size_t d = 0; d < corpus.size(); ++d) {
    const auto learned = corpus.learned(d);
    if (!learned.empty()) count += std::count(learned.begin() + 1, learned.end(), uint8_t{1});
  }
  return count;
}

// Batches that read so many tokens of the corpus.
Result<uint64_t> CountBatches(const train::Corpus& corpus, const train::BatchOptions& options,
                              double tokens) {
  if (!options.whole) {
    return static_cast<uint64_t>(std::ceil(tokens / static_cast<double>(options.tokens)));
  }
  EW_TRY(train::BatchReader reader, train::BatchReader::Create(corpus, options));
  uint64_t count = 0;
  for (double read = 0; read < tokens; ++count) read += static_cast<double>(reader.Next().size());
  return count;
}

// Sets what the job leaves to the data: steps, warm-up, the longest sequence.
Status Complete(const TrainJob& job, const TrainInputs& in, train::TrainerOptions* options) {
  options->batch.whole = in.cache.has_value();
  EW_TRY(train::BatchReader::Create(in.corpus, options->batch).In(job.data));
  EW_TRY(train::AllBatches(in.held_out, options->batch).In("the held-out documents"));
  uint64_t steps = job.steps;
  if (steps == 0) {
    const uint64_t tokens = in.corpus.token_count() - in.corpus.size();
    EW_TRY(const uint64_t batches,
           CountBatches(in.corpus, options->batch, job.epochs * static_cast<double>(tokens)));
    steps = (batches + options->accumulation - 1) / options->accumulation;
  }
  options->schedule.steps = std::max<uint64_t>(steps, 1);
  options->schedule.warmup =
      static_cast<uint64_t>(job.warmup * static_cast<double>(options->schedule.steps));
  EW_TRY(CheckContext(*in.model, options->batch.sequence, "model"));
  if (in.teacher) EW_TRY(CheckContext(*in.teacher, options->batch.sequence, "teacher"));
  return train::CheckTrainer(*options);
}

bool Distils(const TrainJob& job) { return !job.teacher.empty() || !job.cache.empty(); }

TeacherOptions OptionsOf(const TrainJob& job, const train::TrainerOptions& trainer) {
  return {job.teacher_engine, trainer.precision, trainer.batch};
}

// What decides the result, and nothing else.
Json RunRecipe(const TrainJob& job, const Preset& preset, const TrainInputs& in,
               const train::TrainerOptions& o) {
  Json recipe{JsonObject{}};
  recipe.Set("command", Distils(job) ? "distill" : "train");
  recipe.Set("steps", o.schedule.steps).Set("warmup", o.schedule.warmup);
  recipe.Set("schedule", train::ScheduleName(o.schedule.kind));
  recipe.Set("learning_rate", o.schedule.peak).Set("last", o.schedule.last);
  recipe.Set("batch_tokens", o.batch.tokens).Set("sequence", o.batch.sequence);
  recipe.Set("accumulation", o.accumulation).Set("seed", o.seed);
  recipe.Set("beta1", o.beta1).Set("beta2", o.beta2).Set("weight_decay", o.weight_decay);
  recipe.Set("clip", o.clip).Set("ema", o.ema).Set("keep_zeros", o.network.keep_zeros);
  recipe.Set("evaluate_every", o.evaluate_every).Set("patience", o.patience);
  recipe.Set("dropout", static_cast<double>(o.network.dropout));
  recipe.Set("precision", train::PrecisionName(o.precision));
  if (const train::LoraOptions& lora = o.network.lora; lora.rank > 0) {
    recipe.Set("lora_rank", lora.rank).Set("lora_alpha", lora.alpha);
    recipe.Set("lora_dropout", lora.dropout);
    recipe.Set("lora_targets", JsonArray(lora.targets.begin(), lora.targets.end()));
  }
  recipe.Set("to", preset.name).Set("qat", !o.formats.empty());
  if (job.format.format) recipe.Set("format", train::DatasetFormatName(*job.format.format));
  if (!Distils(job)) return recipe;
  recipe.Set("teacher_engine",
             in.teacher ? TeacherEngineName(OptionsOf(job, o)) : in.cache->info().engine);
  if (in.cache) recipe.Set("cache_top", in.cache->info().shape.k);
  recipe.Set("divergence", train::DivergenceName(job.loss.divergence));
  recipe.Set("alpha", job.loss.alpha).Set("temperature", job.loss.temperature);
  recipe.Set("beta", job.loss.beta);
  return recipe;
}

Json LogLine(const train::StepReport& report) {
  Json line{JsonObject{}};
  line.Set("step", report.step).Set("loss", report.loss);
  line.Set("gradient_norm", report.gradient_norm).Set("learning_rate", report.learning_rate);
  line.Set("tokens", report.tokens).Set("seconds", report.seconds);
  if (report.held_out) line.Set("held_out_loss", *report.held_out);
  if (report.skipped) line.Set("skipped", true);
  return line;
}

std::string DigestOf(const std::string& text) {
  return Sha256Hex(std::as_bytes(std::span(text.data(), text.size())));
}

Status WriteText(const std::string& path, std::string_view text) {
  EW_TRY(AtomicFile file, AtomicFile::Create(path, true));
  EW_TRY(file.Write(text));
  return file.Commit();
}

// Keeps the log and the state of the run.
class Keeper final : public train::TrainingObserver {
 public:
  Keeper(std::string folder, std::string run, uint64_t save_every)
      : state_path_(folder + "/state.gguf"),
        log_path_(folder + "/log.jsonl"),
        run_(std::move(run)),
        save_every_(save_every) {}

  // Takes up the state of a run that stopped. The log of steps after it is left out.
  Status Load(TrainerState* state) {
    if (!FileExists(state_path_)) return Ok{};
    EW_TRY(TrainerState kept, train::LoadState(state_path_, run_, state->weights.size()));
    *state = std::move(kept);
    EW_TRY(const std::string text, ReadFile(log_path_, kMaxLogBytes));
    for (size_t begin = 0; lines_ < state->step && begin < text.size(); ++lines_) {
      const size_t end = std::min(text.find('\n', begin), text.size() - 1) + 1;
      log_.append(text, begin, end - begin);
      begin = end;
    }
    return Ok{};
  }
  Status OnStep(const train::StepReport& report, const TrainerState& state) override {
    log_ += LogLine(report).Dump() + "\n";
    ++lines_;
    tokens_ += report.tokens;
    seconds_ += report.seconds;
    skipped_ += report.skipped;
    const bool due = save_every_ > 0 && report.step % save_every_ == 0;
    return due || NowSeconds() - saved_ > kSaveSeconds ? Save(state) : Status(Ok{});
  }
  // The log first: it may be ahead of the state, never behind it.
  Status Save(const TrainerState& state) {
    EW_TRY(WriteText(log_path_, log_));
    saved_ = NowSeconds();
    return train::SaveState(state, run_, state_path_);
  }
  const std::string& log() const { return log_; }
  double tokens_per_s() const { return seconds_ > 0 ? static_cast<double>(tokens_) / seconds_ : 0; }
  uint64_t skipped() const { return skipped_; }

 private:
  std::string state_path_, log_path_, run_;
  uint64_t save_every_;
  std::string log_;
  uint64_t lines_ = 0, tokens_ = 0, skipped_ = 0;
  double seconds_ = 0;
  double saved_ = NowSeconds();
};

// The loss of the job, with the teacher that it needs.
class JobLoss {
 public:
  static Result<std::unique_ptr<JobLoss>> Create(const TrainJob& job, const TrainInputs& in,
                                                 const train::TrainerOptions& options,
                                                 ThreadPool* pool) {
    auto made = std::make_unique<JobLoss>();
    if (in.cache) {
      made->loss_ = std::make_unique<train::CachedLoss>(job.loss, &*in.cache, in.corpus, pool);
    } else if (in.teacher) {
      EW_TRY(made->teacher_,
             LiveTeacher::Create(*in.teacher, OptionsOf(job, options), pool).In(job.teacher));
      made->loss_ = std::make_unique<train::TeacherLoss>(job.loss, made->teacher_->get(), pool);
    } else {
      made->loss_ = std::make_unique<train::CrossEntropyLoss>(pool);
    }
    return made;
  }
  train::TokenLoss* get() { return loss_.get(); }
  LiveTeacher* teacher() { return teacher_.get(); }  // null: none

 private:
  std::unique_ptr<LiveTeacher> teacher_;
  std::unique_ptr<train::TokenLoss> loss_;
};

bool HasLora(const TrainJob& job) { return job.trainer.network.lora.rank > 0; }

Result<TrainerState> FirstState(const TrainJob& job, const TrainInputs& in, uint64_t seed) {
  TrainerState state;
  if (HasLora(job)) {
    EW_TRY(const train::LoraLayout adapters,
           train::LoraLayout::Create(in.model->spec(), job.trainer.network.lora));
    state.weights = train::FirstAdapters(adapters, seed);
    return state;
  }
  const train::ParameterLayout layout(in.model->spec());
  if (layout.size() > kMaxParameters) {
    return MakeError(Code::kOutOfMemory, "%s: a model of %zu parameters", job.model.c_str(),
                     layout.size());
  }
  if (in.from_config) {
    state.weights = train::RandomParameters(in.model->spec(), layout, seed);
  } else {
    EW_TRY(state.weights, train::LoadParameters(*in.model, layout).In(job.model));
  }
  return state;
}

// Weights stay equal only where all train the same run by the same arithmetic.
Status CheckSameRun(train::Communicator& processes, const Json& run) {
  for (const auto& [what, own] :
       {std::pair<const char*, std::string>{"has other options, models or data than process 0",
                                            run.Dump()},
        {"computes by another instruction set than process 0; EDGEWISE_ISA chooses one for all",
         kernels::Active().name}}) {
    const std::string digest = DigestOf(own);
    std::string first = digest;
    processes.Broadcast(std::as_writable_bytes(std::span(first)));
    EW_TRY(processes.Agree(first == digest ? Status(Ok{})
                                           : MakeError(Code::kInvalidArgument, "%s", what)));
  }
  return Ok{};
}

// The model with other weights.
Checkpoint WithWeights(const Checkpoint& model, std::vector<float> weights) {
  const auto shared = std::make_shared<const std::vector<float>>(std::move(weights));
  const train::ParameterLayout layout(model.spec());
  std::unordered_map<size_t, TensorChange> changes;
  for (const train::Parameter& parameter : layout.all()) {
    changes.emplace(*model.Find(parameter.name),
                    [shared, offset = parameter.offset](std::span<float> values) {
                      std::copy_n(shared->begin() + static_cast<std::ptrdiff_t>(offset),
                                  values.size(), values.begin());
                    });
  }
  return model.Changed(std::move(changes));
}

// The format that each parameter will be written in.
Result<std::vector<DType>> OutputFormats(const Checkpoint& model, const PlanOptions& options) {
  const Checkpoint trained = WithWeights(model, {});
  EW_TRY(const std::vector<TensorPlan> plan,
         PlanQuantization(trained.tensors(), trained.spec(),
                          trained.kind() == CheckpointKind::kGguf, options));
  std::vector<DType> formats;
  const train::ParameterLayout layout(model.spec());
  for (const train::Parameter& parameter : layout.all()) {
    formats.push_back(plan[*trained.Find(parameter.name)].to);
  }
  return formats;
}

// The model with what was learned. Writes the adapters where the job wants them.
Result<Checkpoint> Trained(const TrainJob& job, const Checkpoint& model,
                           std::vector<float> weights) {
  if (!HasLora(job)) return WithWeights(model, std::move(weights));
  const train::NetworkOptions& network = job.trainer.network;
  EW_TRY(const train::LoraLayout layout, train::LoraLayout::Create(model.spec(), network.lora));
  LoraAdapter adapter = train::ToAdapter(layout, network.lora, weights);
  for (const std::string& path : job.lora_out) {
    EW_TRY(WriteAdapter(adapter, model.spec(), path, true));  // checked before
  }
  return MergeAdapter(model, std::move(adapter), network.keep_zeros);
}

Result<uint64_t> PlannedBytes(const TrainJob& job, const TrainInputs& in,
                              const train::TrainerOptions& options) {
  EW_TRY(uint64_t bytes, train::TrainingBytes(in.model->spec(), options));
  if (HasLora(job)) bytes += train::CheckpointWeights::Bytes(*in.model, options.batch.tokens);
  if (in.teacher) bytes += TeacherBytes(*in.teacher, OptionsOf(job, options));
  return bytes;
}

// Sees each step and remembers the last one.
class LastStep final : public train::TrainingObserver {
 public:
  Status OnStep(const train::StepReport& report, const TrainerState&) override {
    last = report;
    return Ok{};
  }
  train::StepReport last;
};

Status Predict(const TrainInputs& in, train::TrainerOptions options, TrainerState state,
               train::TokenLoss* loss, train::WeightSource* base, ThreadPool* pool,
               Progress* progress, TrainSummary* summary) {
  constexpr uint64_t kTrialSteps = 2;  // the first one touches the memory
  const uint64_t steps = options.schedule.steps;
  options.schedule.steps = std::min(steps, kTrialSteps);
  options.schedule.warmup = 0;
  LastStep trial;  // tells how long all will take
  EW_TRY(train::RunTraining(in.model->spec(), options, in.corpus, nullptr, loss, pool, progress,
                            &trial, &state, base));
  summary->tokens_per_s = static_cast<double>(trial.last.tokens) / trial.last.seconds;
  summary->seconds = trial.last.seconds * static_cast<double>(steps);
  return Ok{};
}

}  // namespace

bool IsModelConfig(const std::string& path) { return path.ends_with(".json"); }

Status CheckTrainJob(const TrainJob& job) {
  if (job.steps == 0 && !(job.epochs > 0 && job.epochs <= 10000)) {
    return MakeError(Code::kInvalidArgument, "epochs must be above 0 and at most 10000, not %g",
                     job.epochs);
  }
  if (!(job.warmup >= 0 && job.warmup <= 1) || job.steps > kMaxSteps) {
    return MakeError(Code::kInvalidArgument,
                     "the warm-up must be from 0 to 1 of the steps, and these at most %llu",
                     static_cast<unsigned long long>(kMaxSteps));
  }
  const train::BatchOptions& batch = job.trainer.batch;
  if (batch.tokens < 2 || batch.tokens > kMaxBatch || job.trainer.accumulation > kMaxBatch ||
      batch.sequence < 2) {
    return MakeError(Code::kInvalidArgument,
                     "batches have from 2 to %zu tokens in sequences of at least 2, and a step at "
                     "most as many batches",
                     kMaxBatch);
  }
  train::TrainerOptions options = job.trainer;
  options.schedule.steps = std::max<uint64_t>(job.steps, 1);
  options.schedule.warmup = 0;
  if (!job.teacher.empty() && !job.cache.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "a cache stands in place of a teacher: give one of %s and %s",
                     job.teacher.c_str(), job.cache.c_str());
  }
  if (Distils(job)) EW_TRY(train::CheckLoss(job.loss));
  if (job.draft && job.teacher.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "a draft model is measured with its teacher: name that, not a cache");
  }
  if (!job.lora_out.empty() && !HasLora(job)) {
    return MakeError(Code::kInvalidArgument, "%s: without a rank there is no adapter to write",
                     job.lora_out.front().c_str());
  }
  if (!job.lora_out.empty() && job.trainer.network.keep_zeros) {
    return MakeError(Code::kInvalidArgument,
                     "%s: an adapter cannot say which weights stay zero, so that merging it would "
                     "fill them; leave it out, the model that is written has the zeros",
                     job.lora_out.front().c_str());
  }
  if (HasLora(job) && job.student == nullptr && IsModelConfig(job.model)) {
    return MakeError(Code::kInvalidArgument,
                     "%s: a config.json has no weights for adapters to act on; give a model, or "
                     "leave out the adapters",
                     job.model.c_str());
  }
  if (HasLora(job) && !job.qat.empty()) {
    return MakeError(Code::kInvalidArgument,
                     "adapters and training through a quantizer exclude each other: adapters leave "
                     "the weights as they are; give one of the two");
  }
  return train::CheckTrainer(options);
}

Result<TrainSummary> TrainModel(const TrainJob& job, Progress* progress) {
  const double start = NowSeconds();
  train::Communicator& processes = train::OrAlone(job.trainer.processes);
  const bool writes = processes.rank() == 0;
  WriteJob write;
  EW_TRY(write.plan.preset, FindPreset(job.qat.empty() ? Info(job.to).name : job.qat));
  write.plan.allow_requantize = true;
  EW_TRY(CheckTrainJob(job));
  EW_TRY(processes.Agree(writes && !job.dry_run ? CheckOutputs(job) : Status(Ok{})));
  ThreadPool pool(job.threads > 0 ? job.threads : ThreadPool::AvailableCpus());
  EW_TRY(const TrainInputs in, Agree(processes, ReadTrainInputs(job, &pool, progress)));
  train::TrainerOptions options = job.trainer;
  EW_TRY(processes.Agree(Complete(job, in, &options)));
  EW_TRY(TrainerState state, Agree(processes, FirstState(job, in, options.seed)));
  const train::ParameterLayout layout(in.model->spec());
  const auto choose_formats = [&]() -> Status {
    if (job.qat.empty()) return Ok{};
    EW_TRY(options.formats, OutputFormats(*in.model, write.plan));
    return train::CheckFormats(layout, options.formats, options.network.keep_zeros,
                               state.weights.data())
        .In(job.model);
  };
  EW_TRY(processes.Agree(choose_formats()));
  EW_TRY(const auto loss, Agree(processes, JobLoss::Create(job, in, options, &pool)));
  std::optional<train::CheckpointWeights> frozen;
  if (HasLora(job)) {
    EW_TRY(frozen,
           Agree(processes, train::CheckpointWeights::Create(*in.model, &pool).In(job.model)));
  }
  train::WeightSource* base = frozen ? &*frozen : nullptr;

  TrainSummary summary;
  summary.output = job.out;
  summary.parameters = train::ParameterLayout(in.model->spec()).size();
  summary.trainable_parameters = state.weights.size();
  summary.format = train::DatasetFormatName(in.format);
  summary.bad_row_count = in.bad_row_count;
  summary.bad_rows = in.bad_rows;
  summary.documents = in.corpus.size();
  summary.held_out_documents = in.held_out.size();
  summary.tokens = LearnedTokens(in.corpus);
  summary.steps = options.schedule.steps;
  EW_TRY(summary.memory_bytes, PlannedBytes(job, in, options));
  if (job.dry_run) {
    EW_TRY(Predict(in, options, std::move(state), loss->get(), base, &pool, progress, &summary));
    summary.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
    return summary;
  }

  EW_TRY(const TrainInputHashes hashes, Agree(processes, HashTrainInputs(in, progress)));
  const Json recipe = RunRecipe(job, *write.plan.preset, in, options);
  Json run = recipe;
  run.Set("version", EDGEWISE_VERSION);
  for (const auto& [role, digest] : hashes.roles) run.Set(role, digest);
  EW_TRY(CheckSameRun(processes, run));
  std::optional<RunJournal> journal;
  std::optional<Keeper> keeper;
  const auto take_up = [&]() -> Status {
    EW_TRY(journal,
           RunJournal::Open(job.out, run, {.resume = job.resume, .replace = job.overwrite}));
    keeper.emplace(journal->folder(), DigestOf(run.Dump()), job.save_every);
    return keeper->Load(&state);
  };
  EW_TRY(processes.Agree(writes ? take_up() : Status(Ok{})));
  train::ShareState(processes, &state);
  summary.resumed_steps = state.step;
  const auto measure = [&]() -> Result<double> {
    auto ops = train::MakeCpuOps(&pool, options.precision);
    EW_TRY(auto network,
           train::Network::Create(in.model->spec(), ops.get(), options.network, base));
    train::FakeQuantizer quantizer(layout, options.formats, &pool);
    EW_TRY(const float* weights, quantizer.Apply(state.weights.data()));
    return train::HeldOutLoss(in.held_out, options.batch, weights, &pool, *progress, &network,
                              &processes);
  };
  if (state.step == 0) {
    EW_TRY(summary.first_loss, measure());
  }
  LastStep watching;
  train::TrainingObserver* observer = &watching;
  if (writes) observer = &*keeper;
  const Status trained = train::RunTraining(in.model->spec(), options, in.corpus, &in.held_out,
                                            loss->get(), &pool, progress, observer, &state, base);
  if (!trained && trained.error().code == Code::kCancelled && state.step > 0) {
    EW_TRY(processes.Agree(writes ? keeper->Save(state) : Status(Ok{})));
    return MakeError(Code::kCancelled, "stopped after step %llu of %llu; pass --resume to go on",
                     static_cast<unsigned long long>(state.step),
                     static_cast<unsigned long long>(options.schedule.steps));
  }
  EW_TRY(trained);
  EW_TRY(processes.Agree(writes ? keeper->Save(state) : Status(Ok{})));
  EW_TRY(summary.held_out_loss, measure());
  const auto finish = [&]() -> Status {
    summary.skipped_steps = keeper->skipped();
    summary.tokens_per_s = keeper->tokens_per_s();
    if (loss->teacher() != nullptr) {
      EW_TRY(summary.teacher_loss, loss->teacher()->HeldOutLoss(in.held_out, *progress));
    }
    write.recipe = recipe;
    write.tokenizer_path = in.tokenizer_path;
    write.threads = job.threads;
    write.overwrite = true;  // checked above
    write.source = job.source != nullptr ? job.source : &hashes.all;
    EW_TRY(const Checkpoint trained_model, Trained(job, *in.model, std::move(state.weights)));
    EW_TRY(const ConvertSummary written, WriteModel(trained_model, job.out, write, progress));
    summary.bytes = written.bytes;
    if (job.draft) {
      EW_TRY(summary.draft, MeasureDraft({job.teacher, job.out, job.tokenizer_path, job.threads},
                                         in.held_out, progress));
    }
    summary.log = LogPath(job.out);
    summary.page = PagePath(job.out);
    summary.seconds = NowSeconds() - start;
    summary.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
    EW_TRY(WriteText(summary.log, keeper->log()));
    EW_TRY(const std::string page, TrainingHtml(summary, recipe, keeper->log()));
    EW_TRY(WriteText(summary.page, page));
    journal->Remove();
    return Ok{};
  };
  EW_TRY(processes.Agree(writes ? finish() : Status(Ok{})));
  return summary;
}

Json ToJson(const TrainSummary& s) {
  Json json{JsonObject{}};
  json.Set("output", s.output);
  if (!s.log.empty()) json.Set("log", s.log).Set("page", s.page).Set("bytes", s.bytes);
  json.Set("parameters", s.parameters).Set("trainable_parameters", s.trainable_parameters);
  json.Set("format", s.format).Set("documents", s.documents);
  json.Set("bad_row_count", s.bad_row_count);
  json.Set("bad_rows", JsonArray(s.bad_rows.begin(), s.bad_rows.end()));
  json.Set("held_out_documents", s.held_out_documents).Set("tokens", s.tokens);
  json.Set("steps", s.steps).Set("resumed_steps", s.resumed_steps);
  if (!s.log.empty()) {
    if (s.resumed_steps == 0) json.Set("first_loss", s.first_loss);
    json.Set("held_out_loss", s.held_out_loss).Set("skipped_steps", s.skipped_steps);
    if (s.teacher_loss > 0) json.Set("teacher_loss", s.teacher_loss);
  }
  if (s.draft) json.Set("draft", ToJson(*s.draft));
  json.Set("tokens_per_s", s.tokens_per_s).Set("seconds", s.seconds);
  json.Set("memory_bytes", s.memory_bytes).Set("peak_rss_bytes", s.peak_rss_bytes);
  return json;
}

}  // namespace edgewise
