#include "pipeline/train_model.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
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
#include "pipeline/keep_scales.h"
#include "pipeline/output_path.h"
#include "pipeline/run_journal.h"
#include "pipeline/tensor_journal.h"
#include "pipeline/train_layers.h"
#include "pipeline/train_recipe.h"
#include "pipeline/train_setup.h"
#include "pipeline/training_journal.h"
#include "pipeline/training_page.h"
#include "train/lora.h"

namespace edgewise {
namespace {

using train::TrainerState;

std::string DigestOf(const std::string& text) {
  return Sha256Hex(std::as_bytes(std::span(text.data(), text.size())));
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

// The model with what was learned. Writes the adapters to `lora_out`.
Result<Checkpoint> Trained(const TrainJob& job, const Checkpoint& model, std::vector<float> weights,
                           const std::vector<std::string>& lora_out) {
  if (job.scales_only) return model;  // its blocks are in the journal (KeepScalesAt)
  if (!LearnsLora(job)) return WithWeights(model, std::move(weights));
  const train::NetworkOptions& network = job.trainer.network;
  EW_TRY(const train::LoraLayout layout, train::LoraLayout::Create(model.spec(), network.lora));
  LoraAdapter adapter = train::ToAdapter(layout, network.lora, weights);
  for (const std::string& path : lora_out) {
    EW_TRY(WriteAdapter(adapter, model.spec(), path, true));  // checked before
  }
  return MergeAdapter(model, std::move(adapter), network.keep_zeros);
}

// A TensorJournal at `path` of the scales that were learned, where the writer finds them.
Status KeepScalesAt(const std::string& path, const TrainSetup& setup,
                    std::span<const float> learned) {
  std::unordered_map<std::string_view, size_t> indices;
  for (const TensorPlan& tensor : setup.written()) indices.emplace(tensor.name, indices.size());
  EW_TRY(TensorJournal journal, TensorJournal::Open(path, setup.written()));
  const auto index_of = [&](const std::string& name) { return indices.at(name); };
  return KeepScales(*setup.scales(), learned, index_of, &journal);
}

// Calls a function after each step.
class EachStep final : public train::TrainingObserver {
 public:
  using Function = FunctionRef<Status(const train::StepReport&, const TrainerState&)>;
  explicit EachStep(Function function) : function_(function) {}
  Status OnStep(const train::StepReport& report, const TrainerState& state) override {
    return function_(report, state);
  }

 private:
  Function function_;
};

// One job from its first step to its outputs.
class TrainRun {
 public:
  TrainRun(TrainSetup* setup, WriteJob write) : setup_(*setup), write_(std::move(write)) {}

  Status Describe();  // fills what is known before the first step
  Status Predict();
  Status Train();
  TrainSummary& summary() { return summary_; }

 private:
  bool writes() const { return setup_.processes().rank() == 0; }
  // What `work` does is done by the process that writes; all of them fail if it does.
  Status WriterAlone(FunctionRef<Status()> work) {
    return setup_.processes().Agree(writes() ? work() : Status(Ok{}));
  }
  Status TakeUp(const Json& run, TrainerState* state);
  Status Learn(TrainerState* state);
  Status KeepModel(const TrainerState& state);
  Result<ConvertSummary> Write(const std::string& path, std::vector<float> weights, WriteJob write,
                               const std::vector<std::string>& lora_out);
  Status Finish(TrainerState* state);

  TrainSetup& setup_;
  WriteJob write_;
  TrainInputHashes hashes_;
  std::optional<RunJournal> folder_;
  std::optional<TrainingJournal> journal_;
  TrainSummary summary_;
  double start_ = NowSeconds();
};

Status TrainRun::Describe() {
  const TrainInputs& in = setup_.inputs();
  summary_.output = setup_.job().out;
  summary_.parameters = train::ParameterLayout(in.model->spec()).size();
  summary_.format = train::DatasetFormatName(in.format);
  summary_.bad_row_count = in.bad_row_count;
  summary_.bad_rows = in.bad_rows;
  summary_.documents = in.corpus.size();
  summary_.held_out_documents = in.held_out.size();
  summary_.tokens = setup_.learned_tokens();
  summary_.steps = setup_.options().schedule.steps;
  EW_TRY(summary_.memory_bytes, setup_.PlannedBytes());
  return Ok{};
}

// By a trial.
Status TrainRun::Predict() {
  constexpr uint64_t kTrialSteps = 2;  // the first one touches the memory
  TrainerState state = setup_.TakeFirstState();
  summary_.trainable_parameters = state.weights.size() - setup_.loss_parameters();
  train::TrainerOptions options = setup_.options();
  options.schedule.steps = std::min(summary_.steps, kTrialSteps);
  options.schedule.warmup = 0;
  train::StepReport last;
  const auto remember = [&](const train::StepReport& report, const TrainerState&) {
    last = report;
    return Status(Ok{});
  };
  EachStep trial(remember);
  EW_TRY(setup_.Run(options, nullptr, &trial, &state));
  summary_.tokens_per_s = static_cast<double>(last.tokens) / last.seconds;
  summary_.seconds = last.seconds * static_cast<double>(summary_.steps);
  summary_.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
  return Ok{};
}

Status TrainRun::Train() {
  EW_TRY(hashes_, Agree(setup_.processes(), HashTrainInputs(setup_.inputs(), setup_.progress())));
  write_.recipe = TrainRecipe(setup_.job(), write_.plan.preset, setup_.inputs(), setup_.options());
  Json run = write_.recipe;
  run.Set("version", EDGEWISE_VERSION);
  for (const auto& [role, digest] : hashes_.roles) run.Set(role, digest);
  EW_TRY(CheckSameRun(setup_.processes(), run));
  TrainerState state = setup_.TakeFirstState();
  summary_.trainable_parameters = state.weights.size() - setup_.loss_parameters();
  EW_TRY(WriterAlone([&] { return TakeUp(run, &state); }));
  train::ShareState(setup_.processes(), &state);
  summary_.resumed_steps = state.step;
  EW_TRY(Learn(&state));
  return WriterAlone([&] { return Finish(&state); });
}

Status TrainRun::TakeUp(const Json& run, TrainerState* state) {
  const TrainJob& job = setup_.job();
  EW_TRY(CheckKeptModels(job, summary_.steps));
  EW_TRY(folder_, RunJournal::Open(job.out, run, {.resume = job.resume, .replace = job.overwrite}));
  journal_.emplace(folder_->folder(), DigestOf(run.Dump()), job.save_every);
  return journal_->Load(state);
}

Status TrainRun::Learn(TrainerState* state) {
  if (state->step == 0) {
    EW_TRY(const train::HeldOut first, setup_.MeasureHeldOut(*state));
    summary_.first_loss = first.loss;
    summary_.first_kl = first.divergence;
  }
  // One that stopped at this very step may not have come to it.
  if (state->step > 0) EW_TRY(WriterAlone([&] { return KeepModel(*state); }));
  const auto keep = [&](const train::StepReport& report, const TrainerState& at) -> Status {
    if (!writes()) return Ok{};
    EW_TRY(journal_->OnStep(report, at));
    return KeepModel(at);
  };
  EachStep observer(keep);
  const Status trained = setup_.Run(setup_.options(), &setup_.inputs().held_out, &observer, state);
  const bool stopped = !trained && trained.error().code == Code::kCancelled && state->step > 0;
  if (!trained && !stopped) return trained;
  EW_TRY(WriterAlone([&] { return journal_->Save(*state); }));
  if (stopped) {
    return MakeError(Code::kCancelled, "stopped after step %llu of %llu; pass --resume to go on",
                     static_cast<unsigned long long>(state->step),
                     static_cast<unsigned long long>(summary_.steps));
  }
  EW_TRY(const train::HeldOut last, setup_.MeasureHeldOut(*state));
  summary_.held_out_loss = last.loss;
  summary_.held_out_kl = last.divergence;
  return Ok{};
}

// Writes the model of a step on the way where the job wants it, and removes those that are now too
// old. A run that goes on from there or before writes the same bytes again.
Status TrainRun::KeepModel(const TrainerState& state) {
  const TrainJob& job = setup_.job();
  if (job.keep_every == 0 || state.step % job.keep_every != 0 || state.finished) return Ok{};
  WriteJob write = write_;
  write.recipe.Set("step", state.step);
  const std::vector<float>& weights = state.ema.empty() ? state.weights : state.ema;
  EW_TRY(Write(KeptModelPath(job.out, state.step), weights, std::move(write), {}));
  if (job.keep_last == 0) return Ok{};
  for (uint64_t i = state.step / job.keep_every; i > job.keep_last; --i) {
    const std::string old = KeptModelPath(job.out, (i - job.keep_last) * job.keep_every);
    std::error_code error;
    if (std::filesystem::remove(old, error)) continue;
    if (!error) break;  // it and those before it have gone
    return MakeError(Code::kIo, "%s: cannot remove: %s", old.c_str(), error.message().c_str());
  }
  return Ok{};
}

Result<ConvertSummary> TrainRun::Write(const std::string& path, std::vector<float> weights,
                                       WriteJob write, const std::vector<std::string>& lora_out) {
  const TrainJob& job = setup_.job();
  const TrainInputs& in = setup_.inputs();
  write.tokenizer_path = in.tokenizer_path;
  write.threads = job.threads;
  write.overwrite = true;  // checked before
  write.source = job.source != nullptr ? job.source : &hashes_.all;
  if (setup_.scales() != nullptr) {
    write.journal_path = folder_->folder() + "/tensors";
    std::error_code ignored;
    std::filesystem::remove(write.journal_path, ignored);  // of another step
    EW_TRY(KeepScalesAt(write.journal_path, setup_, weights));
  }
  EW_TRY(const Checkpoint model, Trained(job, *in.model, std::move(weights), lora_out));
  // Where a killed run leaves no part of it beside `path`.
  const std::string made = folder_->folder() + "/model.gguf";
  EW_TRY(ConvertSummary written, WriteModel(model, made, std::move(write), setup_.progress()));
  EW_TRY(RenameFile(made, path));
  return written;
}

Status TrainRun::Finish(TrainerState* state) {
  const TrainJob& job = setup_.job();
  const TrainInputs& in = setup_.inputs();
  Progress* progress = setup_.progress();
  summary_.skipped_steps = journal_->skipped();
  summary_.tokens_per_s = journal_->tokens_per_s();
  if (setup_.teacher() != nullptr) {
    EW_TRY(summary_.teacher_loss, setup_.teacher()->HeldOutLoss(in.held_out, *progress));
  }
  EW_TRY(const ConvertSummary written,
         Write(job.out, std::move(state->weights), write_, job.lora_out));
  summary_.bytes = written.bytes;
  for (std::string& path : KeptModelPaths(job, state->step)) {
    if (FileExists(path)) summary_.kept.push_back(std::move(path));
  }
  if (job.draft) {
    EW_TRY(summary_.draft, MeasureDraft({job.teacher, job.out, job.tokenizer_path, job.threads},
                                        in.held_out, progress));
  }
  summary_.log = TrainLogPath(job.out);
  summary_.page = TrainPagePath(job.out);
  summary_.seconds = NowSeconds() - start_;
  summary_.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
  EW_TRY(WriteTextFile(summary_.log, journal_->log()));
  EW_TRY(const std::string page, TrainingHtml(summary_, write_.recipe, journal_->log()));
  EW_TRY(WriteTextFile(summary_.page, page));
  folder_->Remove();
  return Ok{};
}

}  // namespace

Result<TrainSummary> TrainModel(const TrainJob& job, Progress* progress) {
  if (job.layerwise) return TrainLayers(job, progress);
  train::Communicator& processes = train::OrAlone(job.trainer.processes);
  const bool checks = processes.rank() == 0 && !job.dry_run;
  WriteJob write;
  EW_TRY(write.plan, OutputPlan(job));
  EW_TRY(CheckTrainJob(job));
  EW_TRY(processes.Agree(checks ? CheckTrainOutputs(job) : Status(Ok{})));
  EW_TRY(const auto setup, TrainSetup::Create(job, write.plan, progress));
  TrainRun run(setup.get(), std::move(write));
  EW_TRY(run.Describe());
  EW_TRY(job.dry_run ? run.Predict() : run.Train());
  return std::move(run.summary());
}

Json ToJson(const TrainSummary& s) {
  Json json{JsonObject{}};
  json.Set("output", s.output);
  if (!s.log.empty()) json.Set("log", s.log).Set("bytes", s.bytes);
  if (!s.page.empty()) json.Set("page", s.page);
  json.Set("parameters", s.parameters).Set("trainable_parameters", s.trainable_parameters);
  json.Set("format", s.format).Set("documents", s.documents);
  json.Set("bad_row_count", s.bad_row_count);
  json.Set("bad_rows", JsonArray(s.bad_rows.begin(), s.bad_rows.end()));
  json.Set("held_out_documents", s.held_out_documents).Set("tokens", s.tokens);
  json.Set("steps", s.steps).Set("resumed_steps", s.resumed_steps);
  if (!s.log.empty()) {
    if (s.first_loss > 0) json.Set("first_loss", s.first_loss);
    json.Set("held_out_loss", s.held_out_loss).Set("skipped_steps", s.skipped_steps);
    if (s.teacher_loss > 0) json.Set("teacher_loss", s.teacher_loss);
    if (s.first_kl) json.Set("first_kl", *s.first_kl);
    if (s.held_out_kl) json.Set("held_out_kl", *s.held_out_kl);
  }
  if (!s.layers.empty()) json.Set("layers", s.layers);
  if (s.disk_bytes > 0) json.Set("disk_bytes", s.disk_bytes);
  if (s.draft) json.Set("draft", ToJson(*s.draft));
  if (!s.kept.empty()) {
    Json kept{JsonArray{}};
    for (const std::string& path : s.kept) kept.Append(path);
    json.Set("kept", kept);
  }
  json.Set("tokens_per_s", s.tokens_per_s).Set("seconds", s.seconds);
  json.Set("memory_bytes", s.memory_bytes).Set("peak_rss_bytes", s.peak_rss_bytes);
  return json;
}

}  // namespace edgewise
