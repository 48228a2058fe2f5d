#include "pipeline/train_layers.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/process.h"
#include "base/strings.h"
#include "base/thread_pool.h"
#include "pipeline/layer_journal.h"
#include "pipeline/output_path.h"
#include "pipeline/run_journal.h"
#include "pipeline/train_inputs.h"
#include "pipeline/train_recipe.h"
#include "pipeline/write_model.h"
#include "quant/encodable.h"
#include "train/batch_reader.h"
#include "train/fake_quantizer.h"
#include "train/layerwise.h"
#include "train/weights.h"

namespace edgewise {
namespace {

using train::LayerLayout;
using train::LayerReport;
using train::LayerwiseTrainer;
using train::Parameter;
using train::ParameterLayout;

constexpr uint64_t kTrialSteps = 2;          // the first one touches the memory
constexpr size_t kCheckedValues = 1u << 20;  // that are decoded together

// The first documents of a corpus, one at least and of no more than so many tokens.
train::Corpus Beginning(const train::Corpus& corpus, size_t tokens) {
  train::Corpus beginning;
  for (size_t d = 0; d < corpus.size(); ++d) {
    if (d > 0 && beginning.token_count() + corpus.tokens(d).size() > tokens) break;
    beginning.Append(corpus.tokens(d), corpus.learned(d));
  }
  return beginning;
}

double NumberIn(const Json& line, const char* key) {
  const Json* number = line.Find(key);
  return number == nullptr ? 0 : number->AsDouble().value_or(0);
}

// Finds in a tensor that is not trained what it cannot be written with.
Status CheckTensor(const Checkpoint& model, const TensorPlan& entry) {
  EW_TRY(const Tensor tensor, model.Load(entry.source));
  const uint64_t columns = entry.shape.columns(), count = entry.shape.elements();
  const uint64_t piece = std::max<uint64_t>(1, kCheckedValues / columns) * columns;
  std::vector<float> values(std::min(piece, count));
  for (uint64_t at = 0; at < count; at += piece) {
    const uint64_t n = std::min(piece, count - at);
    tensor.view().Decode(at, n, values.data());
    EncodeProblem problem = FindEncodeProblem(entry.to, values.data(), n);
    if (problem.fault == EncodeFault::kNone) continue;
    problem.at += at;
    return EncodingError(entry.name, columns, entry.to, problem);
  }
  model.DropPages(entry.source);
  return Ok{};
}

// One job from its files to its outputs.
class LayersRun {
 public:
  LayersRun(const TrainJob& job, WriteJob write, Progress* progress)
      : job_(job),
        write_(std::move(write)),
        progress_(progress),
        pool_(job.threads > 0 ? job.threads : ThreadPool::AvailableCpus()),
        options_{job.trainer, {}, job.learn_scales} {}

  Status Read();
  Status Predict();
  Status Train();
  TrainSummary& summary() { return summary_; }

 private:
  const Checkpoint& student() const { return *inputs_->model; }
  const Checkpoint& teacher() const { return *inputs_->teacher; }
  Status ChooseFormats();
  Status CheckFormats();
  Status Describe();
  Status Learn(LayerwiseTrainer* trainer, LayerJournal* journal);
  Result<std::unique_ptr<LayerwiseTrainer>> MakeTrainer(const train::LayerwiseOptions& options,
                                                        const train::Corpus& corpus,
                                                        const train::Corpus& held_out) {
    return LayerwiseTrainer::Create(teacher(), student(), options, corpus, held_out, &pool_,
                                    progress_);
  }

  const TrainJob& job_;
  WriteJob write_;
  Progress* progress_;
  ThreadPool pool_;
  std::optional<TrainInputs> inputs_;
  train::LayerwiseOptions options_;
  std::vector<TensorPlan> plan_;  // of the output
  double learned_tokens_ = 0;     // by each layer, in all steps
  TrainSummary summary_;
  double start_ = NowSeconds();
};

Status LayersRun::Read() {
  EW_TRY(inputs_, ReadTrainInputs(job_, &pool_, progress_));
  EW_TRY(train::CheckLayerwise(teacher().spec(), student().spec()).In(job_.model));
  train::TrainerOptions& options = options_.trainer;
  EW_TRY(CheckContext(student(), options.batch.sequence, "model"));
  EW_TRY(CheckContext(teacher(), options.batch.sequence, "teacher"));
  EW_TRY(const auto batches, train::AllBatches(inputs_->corpus, options.batch).In(job_.data));
  EW_TRY(train::AllBatches(inputs_->held_out, options.batch).In("the held-out documents"));
  options.schedule.steps = job_.steps;
  if (job_.steps == 0) {
    const double steps = std::ceil(job_.epochs * static_cast<double>(batches.size()));
    options.schedule.steps = static_cast<uint64_t>(steps);
  }
  learned_tokens_ = static_cast<double>(options.schedule.steps) /
                    static_cast<double>(batches.size()) *
                    static_cast<double>(inputs_->corpus.token_count() - inputs_->corpus.size());
  options.schedule.warmup =
      static_cast<uint64_t>(job_.warmup * static_cast<double>(options.schedule.steps));
  EW_TRY(ChooseFormats());
  EW_TRY(CheckFormats().In(job_.model));
  return Describe();
}

Status LayersRun::ChooseFormats() {
  EW_TRY(plan_, PlanFormats(student(), write_.plan));
  std::unordered_map<std::string_view, DType> formats;
  for (const TensorPlan& entry : plan_) formats.emplace(entry.name, entry.to);
  const ParameterLayout layout(student().spec());
  for (const Parameter& parameter : layout.all()) {
    options_.written.push_back(formats.at(parameter.name));
  }
  if (!job_.qat.empty()) options_.trainer.formats = options_.written;
  return Ok{};
}

// Of all tensors, before the work of hours.
Status LayersRun::CheckFormats() {
  const ParameterLayout layout(student().spec());
  const bool keep_zeros = options_.trainer.network.keep_zeros;
  for (uint32_t l = 0; l < student().spec().n_layers; ++l) {
    const LayerLayout layer(layout, l);
    const std::vector<DType> of_layer = train::FormatsOfLayer(layout, options_.written, l);
    EW_TRY(const std::vector<float> values, train::LoadLayer(student(), layer, &pool_));
    EW_TRY(train::CheckFormats(layer.parameters, of_layer, keep_zeros, values.data()));
  }
  for (const TensorPlan& entry : plan_) {
    if (!entry.name.starts_with("blk.")) EW_TRY(CheckTensor(student(), entry));
  }
  return Ok{};
}

Status LayersRun::Describe() {
  const TrainInputs& in = *inputs_;
  summary_.output = job_.out;
  const ParameterLayout layout(student().spec());
  summary_.parameters = layout.size();
  for (uint32_t l = 0; l < student().spec().n_layers; ++l) {
    summary_.trainable_parameters += LayerLayout(layout, l).size;
  }
  for (const TensorPlan& entry : plan_) {
    if (!options_.learn_scales || !entry.name.starts_with("blk.")) continue;
    summary_.trainable_parameters +=
        train::BlockScales::FactorsOf(entry.to, entry.shape.elements());
  }
  summary_.format = train::DatasetFormatName(in.format);
  summary_.bad_row_count = in.bad_row_count;
  summary_.bad_rows = in.bad_rows;
  summary_.documents = in.corpus.size();
  summary_.held_out_documents = in.held_out.size();
  summary_.tokens = in.corpus.token_count() - in.corpus.size();
  summary_.steps = options_.trainer.schedule.steps;
  const uint64_t tokens = in.corpus.token_count() + in.held_out.token_count();
  const train::LayerwiseCost cost = train::CostOfLayerwise(teacher(), student(), options_, tokens);
  ReleaseFreeMemory();
  summary_.memory_bytes = ReadMemoryUse().rss_bytes + cost.memory;
  summary_.disk_bytes = cost.disk;
  for (const TensorPlan& entry : plan_) {
    EW_TRY(const uint64_t bytes, TensorBytes(entry.to, entry.shape, entry.layout).In(entry.name));
    summary_.disk_bytes += bytes;
  }
  return Ok{};
}

Status LayersRun::Predict() {
  const train::BatchOptions& batch = options_.trainer.batch;
  const train::Corpus corpus = Beginning(inputs_->corpus, batch.tokens);
  const train::Corpus held_out = Beginning(inputs_->held_out, 1);
  train::LayerwiseOptions options = options_;
  options.trainer.schedule.steps = std::min(summary_.steps, kTrialSteps);
  options.trainer.schedule.warmup = 0;
  EW_TRY(const auto trainer, MakeTrainer(options, corpus, held_out));
  LayerReport trial;
  EW_TRY(trainer->Learn([&](const LayerReport& report, auto...) {
    trial = report;
    return Status(Ok{});
  }));
  const auto count = [](const train::Corpus& a, const train::Corpus& b) {
    return static_cast<double>(a.token_count() + b.token_count());
  };
  const double text = count(inputs_->corpus, inputs_->held_out) / count(corpus, held_out);
  summary_.tokens_per_s = static_cast<double>(trial.step_tokens) / trial.step_seconds;
  const double layer = learned_tokens_ / summary_.tokens_per_s + text * trial.pass_seconds;
  summary_.seconds = student().spec().n_layers * layer;
  summary_.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
  return Ok{};
}

// All layers, those that an earlier run learned first.
Status LayersRun::Learn(LayerwiseTrainer* trainer, LayerJournal* journal) {
  const uint32_t layers = student().spec().n_layers;
  while (trainer->next() < layers) {
    const LayerLayout layer = trainer->layer();
    const std::vector<float> kept = journal->Find(layer);
    if (!kept.empty() && journal->log().size() > trainer->next()) {
      EW_TRY(trainer->Pass(kept));
      summary_.resumed_steps += summary_.steps;
      continue;
    }
    journal->CutLog(trainer->next());
    const Status learned =
        trainer->Learn([&](const LayerReport& report, std::span<const float> learned_weights,
                           const train::BlockScales* scales) {
          return journal->Keep(layer, report, learned_weights, scales, &pool_);
        });
    if (!learned && learned.error().code == Code::kCancelled) {
      return MakeError(Code::kCancelled, "%s; pass --resume to go on with it",
                       learned.error().message.c_str());
    }
    EW_TRY(learned);
  }
  return Ok{};
}

Status LayersRun::Train() {
  EW_TRY(const TrainInputHashes hashes, HashTrainInputs(*inputs_, progress_));
  write_.recipe = TrainRecipe(job_, write_.plan.preset, *inputs_, options_.trainer);
  Json run = write_.recipe;
  run.Set("version", EDGEWISE_VERSION);
  for (const auto& [role, digest] : hashes.roles) run.Set(role, digest);
  EW_TRY(const auto trainer, MakeTrainer(options_, inputs_->corpus, inputs_->held_out));
  EW_TRY(RunJournal folder,
         RunJournal::Open(job_.out, run, {.resume = job_.resume, .replace = job_.overwrite}));
  {
    EW_TRY(LayerJournal journal, LayerJournal::Open(folder.folder(), plan_));
    EW_TRY(Learn(trainer.get(), &journal));
    summary_.layers = journal.log();
  }
  write_.journal_path = LayerJournal::TensorsPath(folder.folder());
  write_.tokenizer_path = inputs_->tokenizer_path;
  write_.threads = job_.threads;
  write_.overwrite = true;  // checked before
  write_.source = job_.source != nullptr ? job_.source : &hashes.all;
  EW_TRY(const ConvertSummary written, WriteModel(student(), job_.out, write_, progress_));
  EW_TRY(const Checkpoint model, Checkpoint::Open(job_.out));
  EW_TRY(summary_.held_out_loss, trainer->HeldOutLoss(model));
  EW_TRY(summary_.teacher_loss, trainer->TeacherLoss());
  summary_.bytes = written.bytes;
  summary_.log = TrainLogPath(job_.out);
  double seconds = 0;
  for (const Json& layer : summary_.layers) {
    summary_.skipped_steps += static_cast<uint64_t>(NumberIn(layer, "skipped_steps"));
    seconds += NumberIn(layer, "seconds");
  }
  summary_.tokens_per_s = learned_tokens_ * student().spec().n_layers / seconds;
  summary_.seconds = NowSeconds() - start_;
  summary_.peak_rss_bytes = ReadMemoryUse().peak_rss_bytes;
  EW_TRY(WriteTextFile(summary_.log, JsonLines(summary_.layers)));
  folder.Remove();
  return Ok{};
}

}  // namespace

Result<TrainSummary> TrainLayers(const TrainJob& job, Progress* progress) {
  WriteJob write;
  EW_TRY(write.plan, OutputPlan(job));
  EW_TRY(CheckTrainJob(job));
  if (!job.dry_run) EW_TRY(CheckTrainOutputs(job));
  LayersRun run(job, std::move(write), progress);
  EW_TRY(run.Read());
  EW_TRY(job.dry_run ? run.Predict() : run.Train());
  return std::move(run.summary());
}

}  // namespace edgewise
