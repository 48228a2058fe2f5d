#include "pipeline/train_setup.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <utility>

#include "base/process.h"
#include "base/strings.h"
#include "compress/quantize/presets.h"
#include "train/batch_reader.h"
#include "train/fake_quantizer.h"
#include "train/lora.h"
#include "train/network.h"

namespace edgewise {
namespace {

constexpr size_t kMaxParameters = size_t{1} << 37;  // more than any machine's memory holds

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

// Sets what the job leaves to the data: steps, warm-up, whole sequences, what ends a text.
Status Complete(const TrainJob& job, const TrainInputs& in, train::TrainerOptions* options) {
  options->batch.whole = in.cache.has_value();
  options->on_policy.ends = in.tokenizer->vocab().eog;
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

}  // namespace

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

TrainSetup::TrainSetup(const TrainJob& job, Progress* progress)
    : job_(job),
      progress_(progress),
      processes_(train::OrAlone(job.trainer.processes)),
      pool_(job.threads > 0 ? job.threads : ThreadPool::AvailableCpus()),
      options_(job.trainer) {}

Result<std::unique_ptr<TrainSetup>> TrainSetup::Create(const TrainJob& job, const PlanOptions& plan,
                                                       Progress* progress) {
  std::unique_ptr<TrainSetup> setup(new TrainSetup(job, progress));
  EW_TRY(setup->processes_.Agree(setup->Read(plan)));
  return setup;
}

Status TrainSetup::Read(const PlanOptions& plan) {
  EW_TRY(inputs_, ReadTrainInputs(job_, &pool_, progress_));
  ReleaseFreeMemory();
  inputs_bytes_ = ReadMemoryUse().rss_bytes;
  EW_TRY(Complete(job_, *inputs_, &options_));
  EW_TRY(ReadFirstState());
  EW_TRY(ChooseFormats(plan));
  EW_TRY(MakeLoss());
  if (!LearnsLora(job_)) return Ok{};
  EW_TRY(frozen_, train::CheckpointWeights::Create(*inputs_->model, &pool_).In(job_.model));
  return Ok{};
}

Status TrainSetup::ReadFirstState() {
  const Checkpoint& model = *inputs_->model;
  if (LearnsLora(job_)) {
    EW_TRY(const train::LoraLayout adapters,
           train::LoraLayout::Create(model.spec(), options_.network.lora));
    first_.weights = train::FirstAdapters(adapters, options_.seed);
    return Ok{};
  }
  if (job_.scales_only) {
    EW_TRY(scales_, train::BlockScales::Create(model, &pool_).In(job_.model));
    options_.scales = &*scales_;
    scales_->AppendFactors(&first_.weights);
    return Ok{};
  }
  const train::ParameterLayout layout(model.spec());
  if (layout.size() > kMaxParameters) {
    return MakeError(Code::kOutOfMemory, "%s: a model of %zu parameters", job_.model.c_str(),
                     layout.size());
  }
  if (inputs_->from_config) {
    first_.weights = train::RandomParameters(model.spec(), layout, options_.seed);
  } else {
    EW_TRY(first_.weights, train::LoadParameters(model, layout).In(job_.model));
  }
  return Ok{};
}

Status TrainSetup::ChooseFormats(const PlanOptions& plan) {
  const Checkpoint& model = *inputs_->model;
  if (job_.scales_only) {
    EW_TRY(written_, PlanFormats(model, plan));
    return Ok{};
  }
  if (job_.qat.empty()) return Ok{};
  const Checkpoint trained = WithWeights(model, {});
  EW_TRY(std::vector<TensorPlan> written, PlanFormats(trained, plan));
  const train::ParameterLayout layout(model.spec());
  std::vector<DType> formats;
  for (const train::Parameter& parameter : layout.all()) {
    formats.push_back(written[*trained.Find(parameter.name)].to);
  }
  EW_TRY(
      train::CheckFormats(layout.all(), formats, options_.network.keep_zeros, first_.weights.data())
          .In(job_.model));
  if (!job_.learn_scales) {
    options_.formats = std::move(formats);
    return Ok{};
  }
  EW_TRY(scales_,
         train::BlockScales::CreateWithWeights(layout.all(), formats, first_.weights, &pool_)
             .In("--qat " + job_.qat));
  options_.scales = &*scales_;
  scales_->AppendFactors(&first_.weights);
  written_ = std::move(written);
  return Ok{};
}

Status TrainSetup::MakeLoss() {
  if (inputs_->cache) {
    loss_ =
        std::make_unique<train::CachedLoss>(job_.loss, &*inputs_->cache, inputs_->corpus, &pool_);
  } else if (inputs_->teacher) {
    if (job_.match.any()) {
      match_ = std::make_unique<train::FeatureMatch>(
          job_.match, inputs_->model->spec(), inputs_->teacher->spec(), options_.precision, &pool_);
      const std::vector<float> parameters = match_->First(options_.seed);
      first_.weights.insert(first_.weights.end(), parameters.begin(), parameters.end());
    }
    EW_TRY(teacher_, LiveTeacher::Create(*inputs_->teacher, TeacherOptionsOf(job_, options_),
                                         &pool_, match_.get())
                         .In(job_.teacher));
    auto loss =
        std::make_unique<train::TeacherLoss>(job_.loss, teacher_->get(), &pool_, match_.get());
    kl_ = loss->With({.divergence = train::Divergence::kForwardKl, .alpha = 1, .temperature = 1});
    options_.divergence = &*kl_;
    loss_ = std::move(loss);
  } else {
    loss_ = std::make_unique<train::CrossEntropyLoss>(&pool_);
  }
  return Ok{};
}

uint64_t TrainSetup::learned_tokens() const {
  const train::Corpus& corpus = inputs_->corpus;
  uint64_t count = 0;
  for (size_t d = 0; d < corpus.size(); ++d) {
    const auto learned = corpus.learned(d);
    if (!learned.empty()) count += std::count(learned.begin() + 1, learned.end(), uint8_t{1});
  }
  return count;
}

Result<uint64_t> TrainSetup::PlannedBytes() const {
  EW_TRY(uint64_t bytes, train::TrainingBytes(inputs_->model->spec(), options_, loss_parameters()));
  bytes += inputs_bytes_;
  if (job_.keep_every > 0) bytes += first_.weights.size() * sizeof(float);  // of a step
  if (match_) bytes += match_->Bytes(options_.batch.tokens);
  if (scales_) bytes += scales_->Bytes();
  if (frozen_) bytes += train::CheckpointWeights::Bytes(*inputs_->model, options_.batch.tokens);
  if (inputs_->teacher) bytes += TeacherBytes(*inputs_->teacher, TeacherOptionsOf(job_, options_));
  return bytes;
}

Status TrainSetup::Run(const train::TrainerOptions& options, const train::Corpus* held_out,
                       train::TrainingObserver* observer, train::TrainerState* state) {
  return train::RunTraining(inputs_->model->spec(), options, inputs_->corpus, held_out, loss_.get(),
                            &pool_, progress_, observer, state, base());
}

Result<train::HeldOut> TrainSetup::MeasureHeldOut(const train::TrainerState& state) {
  const ModelSpec& spec = inputs_->model->spec();
  auto ops = train::MakeCpuOps(&pool_, options_.precision);
  EW_TRY(auto network, train::Network::Create(spec, ops.get(), options_.network, base()));
  train::FakeQuantizer quantizer(train::ParameterLayout(spec).all(), options_.formats, &pool_);
  EW_TRY(const float* weights,
         scales_ ? scales_->Apply(state.weights) : quantizer.Apply(state.weights.data()));
  return train::MeasureHeldOut(inputs_->held_out, options_, weights, &pool_, *progress_, &network);
}

}  // namespace edgewise
