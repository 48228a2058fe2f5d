#include "train/layerwise.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/process.h"
#include "base/strings.h"
#include "quant/scale_fields.h"
#include "train/batch_reader.h"
#include "train/fake_quantizer.h"
#include "train/optimizer.h"
#include "train/weights.h"

namespace edgewise::train {
namespace {

constexpr const char* kEmbedding = "token_embd.weight";

// The batches of a pass over the corpus in an order of its own for each pass of each layer.
class BatchOrder {
 public:
  BatchOrder(size_t batches, uint64_t seed) : order_(batches), seed_(seed) {}
  size_t at(uint64_t step) {
    if (step % order_.size() == 0) Shuffle(step / order_.size());
    return order_[step % order_.size()];
  }

 private:
  void Shuffle(uint64_t epoch) {
    std::iota(order_.begin(), order_.end(), 0u);
    ShuffleForEpoch(seed_, epoch, &order_);
  }
  std::vector<uint32_t> order_;
  uint64_t seed_;
};

double SumOfSquares(const float* x, const float* minus, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    const auto value = static_cast<double>(minus == nullptr ? x[i] : x[i] - minus[i]);
    sum += value * value;
  }
  return sum;
}

}  // namespace

std::vector<DType> FormatsOfLayer(const ParameterLayout& layout, std::span<const DType> formats,
                                  uint32_t layer) {
  std::vector<DType> of_layer;
  const std::string prefix = Format("blk.%u.", layer);
  for (size_t i = 0; i < formats.size(); ++i) {
    if (layout.all()[i].name.starts_with(prefix)) of_layer.push_back(formats[i]);
  }
  return of_layer;
}

Status CheckLayerwise(const ModelSpec& teacher, const ModelSpec& student) {
  if (teacher.n_layers == student.n_layers && teacher.dim == student.dim) return Ok{};
  return MakeError(Code::kInvalidArgument,
                   "the teacher has %u layers of width %u and the student %u of %u: layer by layer "
                   "each learns from its own of the teacher; distil such a student as a whole",
                   teacher.n_layers, teacher.dim, student.n_layers, student.dim);
}

Result<LayerwiseTrainer::Streams> LayerwiseTrainer::Streams::Create(std::span<const Batch> batches,
                                                                    size_t dim) {
  Streams streams;
  streams.first_.push_back(0);
  for (const Batch& batch : batches) {
    streams.first_.push_back(streams.first_.back() + batch.size() * dim);
  }
  EW_TRY(streams.memory_, ScratchMemory::Create(streams.first_.back() * sizeof(float)));
  return streams;
}

void LayerwiseTrainer::Streams::Release(size_t batch) const {
  const std::span<const float> rows(this->rows(batch), first_[batch + 1] - first_[batch]);
  memory_.DropPages(std::as_bytes(rows));
}

LayerwiseTrainer::LayerwiseTrainer(const Checkpoint& teacher, const Checkpoint& student,
                                   LayerwiseOptions options, ThreadPool* pool, Progress* progress)
    : teacher_(teacher),
      student_(student),
      options_(std::move(options)),
      pool_(pool),
      progress_(progress),
      ops_(MakeCpuOps(pool, options_.trainer.precision)),
      layout_(student.spec()) {}

Result<std::unique_ptr<LayerwiseTrainer>> LayerwiseTrainer::Create(
    const Checkpoint& teacher, const Checkpoint& student, LayerwiseOptions options,
    const Corpus& corpus, const Corpus& held_out, ThreadPool* pool, Progress* progress) {
  EW_TRY(CheckLayerwise(teacher.spec(), student.spec()));
  EW_TRY(CheckTrainer(options.trainer));
  std::unique_ptr<LayerwiseTrainer> trainer(
      new LayerwiseTrainer(teacher, student, std::move(options), pool, progress));
  EW_CHECK(trainer->options_.written.size() == trainer->layout_.all().size());
  const BatchOptions& batch = trainer->options_.trainer.batch;
  EW_TRY(trainer->batches_, AllBatches(corpus, batch));
  trainer->learned_ = trainer->batches_.size();
  EW_TRY(std::vector<Batch> measured, AllBatches(held_out, batch));
  std::move(measured.begin(), measured.end(), std::back_inserter(trainer->batches_));
  DType format = DType::kF32;
  for (size_t i = 0; i < trainer->options_.written.size(); ++i) {
    if (trainer->layout_.all()[i].name == kEmbedding) format = trainer->options_.written[i];
  }
  EW_TRY(trainer->Embed(teacher, DType::kF32, &trainer->teacher_streams_));
  EW_TRY(trainer->Embed(student, format, &trainer->student_streams_));
  return trainer;
}

// Sets the streams to the embeddings of the tokens, in `format`.
Status LayerwiseTrainer::Embed(const Checkpoint& model, DType format, Streams* streams) {
  const ModelSpec& spec = model.spec();
  EW_TRY(*streams, Streams::Create(batches_, spec.dim));
  EW_TRY(CheckpointWeights weights, CheckpointWeights::Create(model, pool_));
  for (size_t i = 0; i < batches_.size(); ++i) {
    const TokenRows rows = weights.Embedding(batches_[i].tokens);
    const Parameter parameter = {kEmbedding, Shape{batches_[i].size(), spec.dim}, 0};
    FakeQuantizer rounding({&parameter, 1}, {&format, 1}, pool_);
    EW_TRY(const float* table, rounding.Apply(rows.table));
    ops_->Embed(rows.ids, table, spec.dim, spec.embedding_scale, streams->rows(i));
    streams->Release(i);
  }
  if (const auto index = model.Find(kEmbedding)) model.DropPages(*index);
  return Ok{};
}

Status LayerwiseTrainer::GoesOn() const {
  if (!progress_->Cancelled()) return Ok{};
  return MakeError(Code::kCancelled, "stopped in layer %u of %u", next_, student_.spec().n_layers);
}

Result<Network> LayerwiseTrainer::MakeNetwork(const ModelSpec& spec) const {
  size_t rows = 0;
  for (const Batch& batch : batches_) rows = std::max(rows, batch.size());
  return Network::Create(spec, ops_.get(), {.rows = rows});
}

// Moves the teacher's streams over its next layer: the targets of the student's.
Status LayerwiseTrainer::PassTeacher() {
  const LayerLayout layer(ParameterLayout(teacher_.spec()), next_);
  EW_TRY(const std::vector<float> weights, LoadLayer(teacher_, layer, pool_));
  EW_TRY(Network network, MakeNetwork(teacher_.spec()));
  double sum = 0;
  size_t count = 0;
  for (size_t i = 0; i < batches_.size(); ++i) {
    float* rows = teacher_streams_.rows(i);
    EW_TRY(network.RunLayer(batches_[i], next_, In(weights.data(), layer.offsets), rows, rows));
    const size_t n = batches_[i].size() * teacher_.spec().dim;
    if (i < learned_) {
      sum += SumOfSquares(rows, nullptr, n);
      count += n;
    }
    teacher_streams_.Release(i);
    EW_TRY(GoesOn());
  }
  mean_square_ = sum > 0 ? sum / static_cast<double>(count) : 1;
  return Ok{};
}

Status LayerwiseTrainer::PassStudent(const LayerLayout& layer, const float* weights,
                                     Network* network) {
  for (size_t i = 0; i < batches_.size(); ++i) {
    float* rows = student_streams_.rows(i);
    EW_TRY(network->RunLayer(batches_[i], next_, In(weights, layer.offsets), rows, rows));
    student_streams_.Release(i);
    EW_TRY(GoesOn());
  }
  return Ok{};
}

// Of the student's next layer with these weights, on the held-out text.
Result<double> LayerwiseTrainer::RelativeError(const LayerLayout& layer, const float* weights,
                                               Network* network) {
  double error = 0, square = 0;
  std::vector<float> outputs;
  for (size_t i = learned_; i < batches_.size(); ++i) {
    const size_t n = batches_[i].size() * student_.spec().dim;
    outputs.resize(n);
    EW_TRY(network->RunLayer(batches_[i], next_, In(weights, layer.offsets),
                             student_streams_.rows(i), outputs.data()));
    error += SumOfSquares(outputs.data(), teacher_streams_.rows(i), n);
    square += SumOfSquares(teacher_streams_.rows(i), nullptr, n);
    student_streams_.Release(i);
    teacher_streams_.Release(i);
  }
  return std::sqrt(error / (square > 0 ? square : 1));
}

class LayerwiseTrainer::View {
 public:
  // `weights` are those before the first step.
  static Result<View> Create(const LayerwiseOptions& options, const LayerLayout& layer,
                             std::span<const DType> formats, std::span<const float> weights,
                             ThreadPool* pool) {
    View view(!options.trainer.formats.empty());
    const auto has_scales = [](DType format) { return !ScaleFieldsOf(format).empty(); };
    if (options.learn_scales && std::any_of(formats.begin(), formats.end(), has_scales)) {
      EW_TRY(view.scales_,
             BlockScales::CreateWithWeights(layer.parameters, formats, weights, pool));
    } else {
      view.rounding_.emplace(layer.parameters, formats, pool);
    }
    return view;
  }
  BlockScales* scales() { return scales_ ? &*scales_ : nullptr; }
  Result<const float*> Written(std::span<const float> learned) {
    return scales_ ? scales_->Apply(learned) : rounding_->Apply(learned.data());
  }
  Result<const float*> Learning(std::span<const float> learned) {
    return rounded_ ? Written(learned) : Result<const float*>(learned.data());
  }

 private:
  explicit View(bool rounded) : rounded_(rounded) {}
  bool rounded_;  // while it learns too
  std::optional<BlockScales> scales_;
  std::optional<FakeQuantizer> rounding_;  // where no scales are learned
};

Status LayerwiseTrainer::Train(const LayerLayout& layer, View* view, Network* network,
                               TrainerState* state, LayerReport* report) {
  const TrainerOptions& options = options_.trainer;
  const uint64_t steps = options.schedule.steps;
  std::vector<float> gradients(state->weights.size());
  BatchOrder order(learned_, options.batch.seed + next_ * 7919);
  while (state->step < steps) {
    const double start = NowSeconds();
    const size_t i = order.at(state->step);
    const Batch& batch = batches_[i];
    EW_TRY(const float* seen, view->Learning(state->weights));
    std::fill(gradients.begin(), gradients.end(), 0.0f);
    const double scale = 1 / (mean_square_ * static_cast<double>(batch.size()));
    EW_TRY(const double sum,
           network->TrainLayer(batch, next_, In(seen, layer.offsets), student_streams_.rows(i),
                               teacher_streams_.rows(i), static_cast<float>(scale),
                               In(gradients.data(), layer.offsets)));
    if (BlockScales* scales = view->scales()) {
      scales->Reduce(state->weights, gradients.data(), gradients.data());
    }
    StepReport step;
    step.loss = sum * scale;
    EW_TRY(TakeStep(options, layer.matrix_size, ops_.get(), gradients.data(), state, &step)
               .In(Format("layer %u", next_)));
    report->skipped_steps += step.skipped;
    student_streams_.Release(i);
    teacher_streams_.Release(i);
    report->step_tokens = batch.size();
    report->step_seconds = NowSeconds() - start;
    progress_->Update("training", next_ * steps + state->step, student_.spec().n_layers * steps);
    EW_TRY(GoesOn());
  }
  return Ok{};
}

Status LayerwiseTrainer::Learn(Sink sink) {
  const double start = NowSeconds();
  LayerReport report{.layer = next_};
  EW_TRY(PassTeacher());
  report.pass_seconds = NowSeconds() - start;
  const LayerLayout of = layer();
  const std::vector<DType> formats = written();
  TrainerState state;
  EW_TRY(state.weights, LoadLayer(student_, of, pool_));
  EW_TRY(CheckFormats(of.parameters, formats, options_.trainer.network.keep_zeros,
                      state.weights.data()));
  EW_TRY(Network network, MakeNetwork(student_.spec()));
  EW_TRY(View view, View::Create(options_, of, formats, state.weights, pool_));
  if (const BlockScales* scales = view.scales()) scales->AppendFactors(&state.weights);
  EW_TRY(const float* seen, view.Written(state.weights));
  EW_TRY(report.first_error, RelativeError(of, seen, &network));
  ResetMoments(options_.trainer, &state);
  EW_TRY(Train(of, &view, &network, &state, &report));
  EW_TRY(seen, view.Written(state.weights));
  EW_TRY(report.error, RelativeError(of, seen, &network));
  report.learned = report.error < report.first_error;
  if (!report.learned) {
    state = TrainerState();  // its memory first
    EW_TRY(state.weights, LoadLayer(student_, of, pool_));
    const LayerwiseOptions rounding;
    EW_TRY(view, View::Create(rounding, of, formats, state.weights, pool_));
    EW_TRY(seen, view.Written(state.weights));
  }
  const double trained = NowSeconds();
  EW_TRY(PassStudent(of, seen, &network));
  report.pass_seconds += NowSeconds() - trained;
  report.seconds = NowSeconds() - start;
  EW_TRY(sink(report, state.weights, view.scales()));
  ++next_;
  return Ok{};
}

Status LayerwiseTrainer::Pass(std::span<const float> weights) {
  const LayerLayout of = layer();
  EW_CHECK(weights.size() == of.size);
  EW_TRY(PassTeacher());
  EW_TRY(Network network, MakeNetwork(student_.spec()));
  EW_TRY(PassStudent(of, weights.data(), &network));
  ++next_;
  return Ok{};
}

Result<double> LayerwiseTrainer::LossOf(const Checkpoint& model, const Streams& streams) {
  EW_CHECK(next_ == model.spec().n_layers);
  EW_TRY(CheckpointWeights weights, CheckpointWeights::Create(model, pool_));
  EW_TRY(Network network, MakeNetwork(model.spec()));
  CrossEntropyLoss loss(pool_);
  double sum = 0;
  size_t targets = 0;
  for (size_t i = learned_; i < batches_.size(); ++i) {
    EW_TRY(const double part,
           network.EvaluateStream(batches_[i], &weights, streams.rows(i), &loss));
    sum += part;
    targets += batches_[i].CountTargets();
    streams.Release(i);
  }
  return sum / static_cast<double>(targets);
}

Result<double> LayerwiseTrainer::HeldOutLoss(const Checkpoint& model) {
  return LossOf(model, student_streams_);
}
Result<double> LayerwiseTrainer::TeacherLoss() { return LossOf(teacher_, teacher_streams_); }

}  // namespace edgewise::train
