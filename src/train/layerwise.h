// LayerwiseTrainer: a student that learns layer by layer to give what its teacher's layers give, so
// that one layer at a time is in memory: block-wise training of all parameters (Block-AP of
// EfficientQAT, Chen et al. 2024), with a quantizer or without.
//
// Layer l learns to make of x, what the student's layers before it give in the formats that they
// are written in, the teacher's stream after layer l, on the teacher's own way there. So it makes
// up for errors before it, as the targets of error feedback do (GPTAQ, Li et al. 2025). Its loss is
// the squared error over the mean square of the targets, a mean over tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/scratch.h"
#include "base/thread_pool.h"
#include "model/checkpoint.h"
#include "quant/dtype.h"
#include "train/batch.h"
#include "train/block_scales.h"
#include "train/corpus.h"
#include "train/network.h"
#include "train/ops.h"
#include "train/parameters.h"
#include "train/trainer.h"

namespace edgewise::train {

struct LayerwiseOptions {
  // Its schedule is that of each layer. Accumulation, averaged weights, patience, dropout,
  // adapters and several processes have no part in it.
  TrainerOptions trainer;
  // Of each parameter of the student's layout: what it will be written in, which layers after it
  // see. With trainer.formats, which are then the same, it is trained through too.
  std::vector<DType> written;
  bool learn_scales = false;  // with trainer.formats: the scales of their blocks too (BlockScales)
};

struct LayerReport {
  uint32_t layer = 0;
  // |outputs - teacher's| / |teacher's| on held-out text, as the layer is written: before the first
  // step and after the last.
  double first_error = 0, error = 0;
  bool learned = true;         // false: the error did not become less, so the layer stays as it was
  uint64_t skipped_steps = 0;  // gradients that were not finite
  double seconds = 0;
  size_t step_tokens = 0;   // of the last step
  double step_seconds = 0;  // of it
  double pass_seconds = 0;  // of all text through the teacher's layer and the student's
};

// Of the formats of each parameter of a layout, those of a layer.
std::vector<DType> FormatsOfLayer(const ParameterLayout& layout, std::span<const DType> formats,
                                  uint32_t layer);

// Finds what keeps each layer of a student from learning from the teacher's. Errors:
// kInvalidArgument (other numbers of layers or widths of the residual stream).
Status CheckLayerwise(const ModelSpec& teacher, const ModelSpec& student);

// Bytes of memory that it takes at its peak for `tokens` of text, beside those of the corpus, and
// of disk for their streams.
struct LayerwiseCost {
  uint64_t memory = 0, disk = 0;
};
LayerwiseCost CostOfLayerwise(const Checkpoint& teacher, const Checkpoint& student,
                              const LayerwiseOptions& options, uint64_t tokens);

// Not thread-safe; of no more use after an error. Results do not depend on the number of threads.
class LayerwiseTrainer {
 public:
  // Reads the embeddings of all text, the student's rounded to their format. Pool and progress must
  // outlive it. Errors: those of CheckLayerwise, AllBatches, Checkpoint::Load, FakeQuantizer and
  // ScratchMemory.
  static Result<std::unique_ptr<LayerwiseTrainer>> Create(
      const Checkpoint& teacher, const Checkpoint& student, LayerwiseOptions options,
      const Corpus& corpus, const Corpus& held_out, ThreadPool* pool, Progress* progress);

  uint64_t batches() const { return learned_; }  // of a pass over the corpus
  uint32_t next() const { return next_; }        // the layer that comes now
  // Its parameters.
  LayerLayout layer() const { return {layout_, next_}; }
  std::vector<DType> written() const { return FormatsOfLayer(layout_, options_.written, next_); }

  // Learns the next layer and hands it to `sink` before the layer after it comes: its weights,
  // (layer().size) floats that are not yet rounded, and where scales were learned their factors
  // behind them; `scales`, else null, makes its blocks of these. Errors: those of Checkpoint::Load,
  // CheckFormats, BlockScales, Network, TakeStep and `sink`; kCancelled (after the step in work).
  using Sink = FunctionRef<Status(const LayerReport& report, std::span<const float> learned,
                                  const BlockScales* scales)>;
  Status Learn(Sink sink);
  // Passes the next layer with weights that were learned before, (layer().size) as they are
  // written. Errors: those of Checkpoint::Load and Network; kCancelled.
  Status Pass(std::span<const float> weights);

  // After the last layer: the mean cross-entropy of the held-out text, in nats, of the student that
  // was written as `model`, or of the teacher. Errors: those of CheckpointWeights and Network.
  Result<double> HeldOutLoss(const Checkpoint& model);
  Result<double> TeacherLoss();

 private:
  // Residual streams of all batches before the layer that comes next.
  class Streams {
   public:
    static Result<Streams> Create(std::span<const Batch> batches, size_t dim);
    float* rows(size_t batch) const {  // (n, dim)
      return reinterpret_cast<float*>(memory_.bytes().data()) + first_[batch];
    }
    // Lets go of the pages of a batch, which come back when they are used.
    void Release(size_t batch) const;

   private:
    std::vector<size_t> first_;  // of each batch, and the end, in floats
    ScratchMemory memory_;
  };
  LayerwiseTrainer(const Checkpoint& teacher, const Checkpoint& student, LayerwiseOptions options,
                   ThreadPool* pool, Progress* progress);
  Status GoesOn() const;  // kCancelled where it should not
  Status Embed(const Checkpoint& model, DType format, Streams* streams);
  Status PassTeacher();
  Status PassStudent(const LayerLayout& layer, const float* weights, Network* network);
  // How the weights of a layer are seen as it learns, and as it is written.
  class View;
  Status Train(const LayerLayout& layer, View* view, Network* network, TrainerState* state,
               LayerReport* report);
  Result<double> RelativeError(const LayerLayout& layer, const float* weights, Network* network);
  Result<double> LossOf(const Checkpoint& model, const Streams& streams);
  Result<Network> MakeNetwork(const ModelSpec& spec) const;

  Checkpoint teacher_, student_;
  LayerwiseOptions options_;
  ThreadPool* pool_;
  Progress* progress_;
  std::unique_ptr<Ops> ops_;
  ParameterLayout layout_;
  uint32_t next_ = 0;
  std::vector<Batch> batches_;  // those to learn from, then those held out
  size_t learned_ = 0;          // how many are learned from
  Streams student_streams_, teacher_streams_;
  double mean_square_ = 0;  // of the teacher's streams that are learned from
};

}  // namespace edgewise::train
