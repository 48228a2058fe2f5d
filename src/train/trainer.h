// Trainer: AdamW over a corpus until the steps are done, and its state, from which a run goes on in
// another process with the same result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "model/spec.h"
#include "quant/dtype.h"
#include "train/batch_reader.h"
#include "train/block_scales.h"
#include "train/communicator.h"
#include "train/loss.h"
#include "train/moments.h"
#include "train/network.h"
#include "train/on_policy.h"
#include "train/schedule.h"
#include "train/weights.h"

namespace edgewise::train {

struct TrainerOptions {
  Schedule schedule;
  BatchOptions batch;
  uint32_t accumulation = 1;  // batches of a step
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;  // of matrices
  MomentFormat moments = MomentFormat::kF32;
  double clip = 1;                // the largest norm of the gradient; 0: any
  double ema = 0;                 // decay of the averaged weights; 0: none are kept
  uint64_t evaluate_every = 100;  // steps; 0: at the end only
  // Evaluated beside the cross-entropy, and then what is to become better: the divergence from a
  // teacher. Must outlive the run; null: the cross-entropy alone.
  TokenLoss* divergence = nullptr;
  uint32_t patience = 0;  // evaluations without a better one after which training ends; 0: never
  Precision precision = Precision::kBf16;
  NetworkOptions network;
  OnPolicyOptions on_policy;
  uint64_t seed = 1;  // of dropout, and of what is sampled
  // Who shares the work: of a step's batches rank r computes r, r + size, and so on. They change no
  // bit of the result. Must outlive the run; null: this process alone.
  Communicator* processes = nullptr;
  // Of each parameter of the layout: what the network sees is quantized to it (fake_quantizer.h),
  // in steps and in measurements. Empty: floats.
  std::vector<DType> formats;
  // Whose factors, without weight decay, are learned in place of weights or behind them, and what
  // then becomes of the weights in place of `formats`. Must outlive the run; null: weights alone.
  BlockScales* scales = nullptr;
};
// "bf16", "f32" and back. Errors: kInvalidArgument.
Result<Precision> ParsePrecision(std::string_view name);
const char* PrecisionName(Precision precision);
// Errors: kInvalidArgument (a value out of range, named; batches that the processes cannot share
// evenly).
Status CheckTrainer(const TrainerOptions& options);

// Everything that a step reads and changes.
struct TrainerState {
  // And behind them factors of scales (BlockScales) and the parameters of the loss (LayerLoss).
  std::vector<float> weights;
  std::vector<float> mean, variance;  // of gradients: floats, or with codes their scales (Moments)
  std::vector<uint8_t> mean_codes, variance_codes;  // empty: the moments are floats
  std::vector<float> ema;                           // empty: none
  std::vector<float> best;  // with patience: the weights of the best evaluation
  uint64_t step = 0;        // that are done
  uint64_t updates = 0;     // of the weights: steps that were not skipped
  uint32_t skipped = 0;     // steps in a row that were, up to this one
  ReaderPosition position;
  // Held-out divergence or cross-entropy, in nats; of no evaluation yet while `evaluations` is 0.
  double best_loss = 0;
  uint64_t evaluations = 0;
  uint32_t without_better = 0;  // evaluations since the best one
  bool finished = false;

  Moments moments() {
    return {mean.data(), variance.data(), mean_codes.empty() ? nullptr : mean_codes.data(),
            variance_codes.empty() ? nullptr : variance_codes.data()};
  }
};

// Writes the state as a GGUF, complete or not at all. `run` tells runs apart: what decides their
// result. Errors: those of GgufWriter.
Status SaveState(const TrainerState& state, const std::string& run, const std::string& path);
// Errors: those of GgufFile; kInvalidArgument (the state of another run, or of another model).
Result<TrainerState> LoadState(const std::string& path, const std::string& run, size_t parameters);
// Gives all processes the state of rank 0.
void ShareState(Communicator& processes, TrainerState* state);

// What a step did.
struct StepReport {
  uint64_t step = 0;
  double loss = 0;           // mean of the targets, in nats
  double layer_loss = 0;     // the same of LayerLoss, in its own unit
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  uint64_t tokens = 0;  // that were read for the step
  double seconds = 0;
  bool skipped = false;            // the gradient was not finite: the weights stayed
  std::optional<double> held_out;  // mean cross-entropy on the held-out documents
  std::optional<double> held_out_divergence;
};

// Sees each step; may save the state.
class TrainingObserver {
 public:
  virtual ~TrainingObserver() = default;
  virtual Status OnStep(const StepReport& report, const TrainerState& state) = 0;
};

// Bytes that training takes in each process: what is learned, as it is seen too, its gradients and
// moments, activations. The loss has so many parameters of its own. A base of adapters is not among
// them (CheckpointWeights::Bytes), nor is what the scales take (BlockScales::Bytes) and what
// products pack (Gemm). Errors: those of LoraLayout::Create.
Result<uint64_t> TrainingBytes(const ModelSpec& spec, const TrainerOptions& options,
                               size_t loss_parameters = 0);

// The mean of `loss` over the targets of the corpus, in nats. Errors: those of Network, `loss` and
// AllBatches; kCancelled. Processes share the batches, and all receive the loss; null: this one
// alone.
Result<double> HeldOutLoss(const Corpus& corpus, const BatchOptions& options, const float* weights,
                           TokenLoss* loss, const Progress& progress, Network* network,
                           Communicator* processes = nullptr);
// The same of what `evaluate` computes: the sum of a batch's losses.
Result<double> HeldOutLoss(const Corpus& corpus, const BatchOptions& options,
                           const Progress& progress,
                           FunctionRef<Result<double>(const Batch&)> evaluate,
                           Communicator* processes = nullptr);

// Means over the held-out targets, in nats.
struct HeldOut {
  double loss = 0;                   // cross-entropy
  std::optional<double> divergence;  // where `options` have one
};
// Of the weights as the network gets them. Errors: those of HeldOutLoss.
Result<HeldOut> MeasureHeldOut(const Corpus& corpus, const TrainerOptions& options,
                               const float* weights, ThreadPool* pool, const Progress& progress,
                               Network* network);

// Runs from state->step to the end. `held_out` may be null; so is `base` but for adapters, as in
// Network::Create. The parameters of loss->layers() train behind the weights, without decay. With
// patience the weights of the best evaluation are left in state->weights, which are not rounded to
// their formats. Errors: kInvalidArgument, kBadData (ten gradients in a row that are not finite),
// kCancelled (after the step in work), those of CheckFormats, FakeQuantizer, `loss` and `observer`;
// of several processes all return the same error.
Status RunTraining(const ModelSpec& spec, const TrainerOptions& options, const Corpus& corpus,
                   const Corpus* held_out, TokenLoss* loss, ThreadPool* pool, Progress* progress,
                   TrainingObserver* observer, TrainerState* state, WeightSource* base = nullptr);

}  // namespace edgewise::train
