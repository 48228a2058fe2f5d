#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "formats/gguf.h"
#include "train/fake_quantizer.h"
#include "train/optimizer.h"

namespace edgewise::train {
namespace {

constexpr size_t kZeroGrain = 1u << 20;  // gradients that a thread sets to zero at once

Status CheckShare(double value, const char* name) {
  if (value >= 0 && value < 1) return Ok{};
  return MakeError(Code::kInvalidArgument, "%s must be from 0 to below 1, not %g", name, value);
}

class Run {
 public:
  // `on_policy` is empty where nothing is sampled.
  Run(const TrainerOptions& options, const ParameterLayout& layout, Network network,
      std::optional<OnPolicy> on_policy, std::unique_ptr<Ops> ops, BatchReader reader,
      ThreadPool* pool, TrainerState* state)
      : options_(options),
        ops_(std::move(ops)),
        network_(std::move(network)),
        on_policy_(std::move(on_policy)),
        reader_(std::move(reader)),
        quantizer_(layout.all(), options.formats, pool),
        pool_(pool),
        processes_(OrAlone(options.processes)),
        state_(*state),
        gradients_(std::max(state->weights.size(), network_.size())),
        scale_gradients_(FactorsAlone() ? state->weights.size() : 0) {}

  // Shows the loss its parameters, behind the weights; null: it has none.
  void Bind(LayerLoss* layers) {
    if (layers == nullptr) return;
    const size_t first = state_.weights.size() - layers->size();
    layers->Bind(state_.weights.data() + first, gradients_.data() + first);
  }
  Result<StepReport> Step(TokenLoss* loss);
  // To its end: a step that is done is measured and reported, or a stopped run goes on otherwise.
  Result<HeldOut> Evaluate(const Corpus& held_out) {
    EW_TRY(const float* weights, Seen(state_.ema.empty() ? state_.weights : state_.ema));
    return MeasureHeldOut(held_out, options_, weights, pool_, NoProgress(), &network_);
  }

 private:
  bool FactorsAlone() const {
    return options_.scales != nullptr && options_.scales->weights() == 0;
  }
  // The weights that the network gets for what is learned.
  Result<const float*> Seen(const std::vector<float>& learned) {
    return options_.scales != nullptr ? options_.scales->Apply(learned)
                                      : quantizer_.Apply(learned.data());
  }
  // A number of its own for each batch of the run.
  uint64_t SeedOf(size_t number) const {
    return options_.seed + (state_.step * options_.accumulation + number) * 7919;
  }
  // Lets the student write in the batches that are this process's. Returns the targets of all.
  Result<size_t> Sample(std::span<Batch> batches);
  // Leaves the gradients of the sum of the batches' losses, times `scale`, in gradients_; returns
  // the losses, and behind them those of the layers. The batches' gradients are added in their
  // order, whoever computed them.
  Result<std::vector<double>> Differentiate(std::span<const Batch> batches, float scale,
                                            TokenLoss* loss);
  Status DifferentiateBatch(std::span<const Batch> batches, size_t number, float scale,
                            TokenLoss* loss, std::vector<double>* losses) {
    pool_->ParallelFor(gradients_.size(), kZeroGrain, [&](size_t begin, size_t end, int) {
      std::fill(gradients_.data() + begin, gradients_.data() + end, 0.0f);
    });
    EW_TRY((*losses)[number],
           network_.Train(batches[number], seen_, loss, scale, SeedOf(number), gradients_.data()));
    if (loss->layers() != nullptr) (*losses)[batches.size() + number] = loss->layers()->loss();
    return Ok{};
  }
  const TrainerOptions& options_;
  std::unique_ptr<Ops> ops_;  // outlives network_
  Network network_;
  std::optional<OnPolicy> on_policy_;
  BatchReader reader_;
  FakeQuantizer quantizer_;
  ThreadPool* pool_;
  Communicator& processes_;
  TrainerState& state_;
  const float* seen_ = nullptr;         // the weights that the step is of
  std::vector<float> gradients_;        // of the network's weights, or of all that is learned
  std::vector<float> scale_gradients_;  // of factors of scales, if these alone are learned
  std::vector<float> sum_;              // of several batches: this process's part
};

Result<std::vector<double>> Run::Differentiate(std::span<const Batch> batches, float scale,
                                               TokenLoss* loss) {
  std::vector<double> losses(2 * batches.size());
  if (batches.size() == 1) {
    EW_TRY(DifferentiateBatch(batches, 0, scale, loss, &losses));
    return losses;
  }
  sum_.assign(processes_.PartOf(gradients_.size(), processes_.rank()).count, 0.0f);
  const auto ranks = static_cast<size_t>(processes_.size());
  Status status = Ok{};
  for (size_t first = 0; first < batches.size(); first += ranks) {
    const size_t number = first + static_cast<size_t>(processes_.rank());
    if (status && number < batches.size()) {
      // Where it fails the others wait for this process: it goes on to the end.
      status = DifferentiateBatch(batches, number, scale, loss, &losses);
    }
    processes_.Collect(gradients_, static_cast<int>(std::min(ranks, batches.size() - first)),
                       [&](size_t at, std::span<const float> piece) {
                         float* sum = sum_.data() + at;
                         ops_->Add(sum, piece.data(), piece.size(), sum);
                       });
  }
  EW_TRY(processes_.Agree(std::move(status)));
  processes_.Gather(sum_, gradients_);
  processes_.Sum(losses);
  return losses;
}

Result<size_t> Run::Sample(std::span<Batch> batches) {
  std::vector<double> targets(batches.size());
  Status status = Ok{};
  const auto ranks = static_cast<size_t>(processes_.size());
  for (auto i = static_cast<size_t>(processes_.rank()); i < batches.size(); i += ranks) {
    // Other seeds than dropout's.
    if (status) status = on_policy_->Rewrite(seen_, ~SeedOf(i), &batches[i]);
    targets[i] = static_cast<double>(batches[i].CountTargets());
  }
  EW_TRY(processes_.Agree(std::move(status)));
  processes_.Sum(targets);
  return static_cast<size_t>(std::accumulate(targets.begin(), targets.end(), 0.0));
}

Result<StepReport> Run::Step(TokenLoss* loss) {
  std::vector<Batch> batches;
  size_t targets = 0;
  StepReport report;
  while (batches.size() < options_.accumulation || targets == 0) {
    batches.push_back(reader_.Next());
    targets += batches.back().CountTargets();
    report.tokens += batches.back().size();
  }
  EW_TRY(seen_, Seen(state_.weights));
  if (on_policy_) {
    EW_TRY(targets, Sample(batches));
  }
  EW_TRY(const std::vector<double> losses,
         Differentiate(batches, 1.0f / static_cast<float>(targets), loss));
  for (size_t i = 0; i < batches.size(); ++i) {
    report.loss += losses[i] / static_cast<double>(targets);
    report.layer_loss += losses[batches.size() + i] / static_cast<double>(targets);
  }
  float* gradients = gradients_.data();
  size_t decayed = network_.matrix_size();
  if (options_.scales != nullptr) {
    if (FactorsAlone()) gradients = scale_gradients_.data();
    options_.scales->Reduce(state_.weights, gradients_.data(), gradients);
    decayed = std::min(decayed, options_.scales->weights());
  }
  EW_TRY(TakeStep(options_, decayed, ops_.get(), gradients, &state_, &report));
  state_.position = reader_.position();
  return report;
}

// Takes the evaluation into account; returns whether training should go on.
bool GoesOn(const TrainerOptions& options, double loss, TrainerState* state) {
  const bool better = state->evaluations == 0 || loss < state->best_loss;
  ++state->evaluations;
  state->without_better = better ? 0 : state->without_better + 1;
  if (better) state->best_loss = loss;
  if (options.patience == 0) return true;
  if (better) state->best = state->ema.empty() ? state->weights : state->ema;
  return state->without_better < options.patience;
}

Status Prepare(const ParameterLayout& layout, size_t size, const TrainerOptions& options,
               TrainerState* state) {
  if (state->weights.size() != size) {
    return MakeError(Code::kInvalidArgument, "%zu weights where %zu are learned",
                     state->weights.size(), size);
  }
  // Zeros that must stay are those before the first step.
  const bool keep_zeros = options.network.keep_zeros && state->step == 0;
  EW_TRY(CheckFormats(layout.all(), options.formats, keep_zeros, state->weights.data()));
  if (state->step > 0) return Ok{};
  ResetMoments(options, state);
  if (options.ema > 0) state->ema = state->weights;
  return Ok{};
}

}  // namespace

const char* PrecisionName(Precision precision) {
  return precision == Precision::kBf16 ? "bf16" : "f32";
}

Result<Precision> ParsePrecision(std::string_view name) {
  for (const Precision known : {Precision::kBf16, Precision::kF32}) {
    if (name == PrecisionName(known)) return known;
  }
  return MakeError(Code::kInvalidArgument, "precision %s: bf16 and f32 are known",
                   Quote(name).c_str());
}

Status CheckTrainer(const TrainerOptions& options) {
  EW_TRY(options.schedule.Check());
  EW_TRY(CheckShare(options.beta1, "beta1"));
  EW_TRY(CheckShare(options.beta2, "beta2"));
  EW_TRY(CheckShare(options.ema, "the decay of averaged weights"));
  EW_TRY(CheckShare(static_cast<double>(options.network.dropout), "dropout"));
  if (!(options.eps > 0 && options.weight_decay >= 0 && options.weight_decay <= 1 &&
        options.clip >= 0)) {
    return MakeError(Code::kInvalidArgument,
                     "eps must be above 0, weight decay from 0 to 1, clipping not below 0");
  }
  if (options.accumulation == 0) {
    return MakeError(Code::kInvalidArgument, "a step takes at least one batch");
  }
  const int processes = OrAlone(options.processes).size();
  if (options.accumulation % static_cast<uint32_t>(processes) != 0) {
    return MakeError(Code::kInvalidArgument,
                     "a step of %u batches cannot be shared by %d processes: accumulate a multiple "
                     "of %d",
                     options.accumulation, processes, processes);
  }
  EW_TRY(CheckOnPolicy(options.on_policy));
  const LoraOptions& lora = options.network.lora;
  EW_TRY(CheckLora(lora));
  if (lora.rank > 0 && lora.dropout > 0 && options.network.keep_zeros) {
    return MakeError(Code::kInvalidArgument,
                     "LoRA's dropout has no place where zeros are kept: adapters are merged into "
                     "the weights then; leave one of the two out");
  }
  return Ok{};
}

Result<uint64_t> TrainingBytes(const ModelSpec& spec, const TrainerOptions& options,
                               size_t loss_parameters) {
  const bool codes = options.moments == MomentFormat::k8Bit;
  const bool factors_alone = options.scales != nullptr && options.scales->weights() == 0;
  const uint64_t copies = (codes ? 1 : 3) + (options.ema > 0) + factors_alone +
                          (options.patience > 0) + !options.formats.empty();
  uint64_t learned = ParameterLayout(spec).size();
  if (options.network.lora.rank > 0) {
    EW_TRY(const LoraLayout layout, LoraLayout::Create(spec, options.network.lora));
    learned = layout.size();
  }
  learned += loss_parameters;
  uint64_t gradients = learned;
  if (options.scales != nullptr) {
    learned = options.scales->learned() + loss_parameters;
    gradients = std::max(gradients, learned);
  }
  if (options.accumulation > 1) gradients += OrAlone(options.processes).PartOf(gradients, 0).count;
  const uint64_t moments = codes ? 2 * (learned + MomentBlocks(learned) * sizeof(float)) : 0;
  const uint64_t written = options.on_policy.fraction > 0
                               ? GrowingBytes(spec, options.network, options.batch.tokens)
                               : 0;
  return (copies * learned + gradients) * sizeof(float) + moments + written +
         ActivationBytes(spec, options.network, options.batch.tokens, true);
}

Result<double> HeldOutLoss(const Corpus& corpus, const BatchOptions& options, const float* weights,
                           TokenLoss* loss, const Progress& progress, Network* network,
                           Communicator* processes) {
  return HeldOutLoss(
      corpus, options, progress,
      [&](const Batch& batch) { return network->Evaluate(batch, weights, loss); }, processes);
}

Result<double> HeldOutLoss(const Corpus& corpus, const BatchOptions& options,
                           const Progress& progress,
                           FunctionRef<Result<double>(const Batch&)> evaluate,
                           Communicator* processes) {
  Communicator& all = OrAlone(processes);
  EW_TRY(const std::vector<Batch> batches, AllBatches(corpus, options));
  std::vector<double> losses(batches.size());
  const auto measure = [&]() -> Status {
    for (auto i = static_cast<size_t>(all.rank()); i < batches.size();
         i += static_cast<size_t>(all.size())) {
      EW_TRY(losses[i], evaluate(batches[i]));
      if (progress.Cancelled()) return MakeError(Code::kCancelled, "stopped while measuring");
    }
    return Ok{};
  };
  EW_TRY(all.Agree(measure()));
  all.Sum(losses);
  size_t targets = 0;
  for (const Batch& batch : batches) targets += batch.CountTargets();
  return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(targets);
}

Result<HeldOut> MeasureHeldOut(const Corpus& corpus, const TrainerOptions& options,
                               const float* weights, ThreadPool* pool, const Progress& progress,
                               Network* network) {
  const auto mean = [&](TokenLoss* loss) {
    return HeldOutLoss(corpus, options.batch, weights, loss, progress, network, options.processes);
  };
  CrossEntropyLoss cross_entropy(pool);
  HeldOut measured;
  EW_TRY(measured.loss, mean(&cross_entropy));
  if (options.divergence == nullptr) return measured;
  EW_TRY(measured.divergence, mean(options.divergence));
  return measured;
}

Status RunTraining(const ModelSpec& spec, const TrainerOptions& options, const Corpus& corpus,
                   const Corpus* held_out, TokenLoss* loss, ThreadPool* pool, Progress* progress,
                   TrainingObserver* observer, TrainerState* state, WeightSource* base) {
  EW_TRY(CheckTrainer(options));
  auto ops = MakeCpuOps(pool, options.precision);
  NetworkOptions network_options = options.network;
  network_options.rows = options.batch.tokens;
  EW_TRY(Network network, Network::Create(spec, ops.get(), network_options, base));
  const ParameterLayout layout(spec);
  std::optional<OnPolicy> on_policy;
  if (options.on_policy.fraction > 0) {
    EW_TRY(Network writer, Network::Create(spec, ops.get(), network_options, base));
    on_policy.emplace(options.on_policy, spec.vocab_size, std::move(writer), pool);
  }
  LayerLoss* layers = loss->layers();
  const size_t learned = (options.scales != nullptr ? options.scales->learned() : network.size()) +
                         (layers == nullptr ? 0 : layers->size());
  EW_TRY(Prepare(layout, learned, options, state));
  EW_TRY(BatchReader reader, BatchReader::Create(corpus, options.batch));
  EW_TRY(reader.Seek(state->position));
  Run run(options, layout, std::move(network), std::move(on_policy), std::move(ops),
          std::move(reader), pool, state);
  run.Bind(layers);
  Communicator& processes = OrAlone(options.processes);
  const uint64_t steps = options.schedule.steps;
  while (!state->finished) {
    const auto start = std::chrono::steady_clock::now();
    EW_TRY(StepReport report, run.Step(loss));
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    report.seconds = taken.count();
    state->finished = state->step >= steps;
    const bool due = options.evaluate_every > 0 && report.step % options.evaluate_every == 0;
    if (held_out != nullptr && (due || state->finished)) {
      EW_TRY(const HeldOut measured, run.Evaluate(*held_out));
      report.held_out = measured.loss;
      report.held_out_divergence = measured.divergence;
      const double judged = measured.divergence.value_or(measured.loss);
      if (!GoesOn(options, judged, state)) state->finished = true;
    }
    progress->Update("training", state->step, steps);
    EW_TRY(processes.Agree(observer->OnStep(report, *state)));
    double cancelled = progress->Cancelled();
    processes.Sum({&cancelled, 1});
    if (!state->finished && cancelled > 0) {
      return MakeError(Code::kCancelled, "stopped after step %llu",
                       static_cast<unsigned long long>(state->step));
    }
  }
  if (!state->best.empty()) {
    state->weights = state->best;
  } else if (!state->ema.empty()) {
    state->weights = state->ema;
  }
  return Ok{};
}

}  // namespace edgewise::train
