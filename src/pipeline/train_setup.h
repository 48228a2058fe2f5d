// What a training job has before its first step: data, weights, the loss with its teacher. Training
// and its trials begin alike.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "pipeline/live_teacher.h"
#include "pipeline/train_inputs.h"
#include "pipeline/train_job.h"
#include "pipeline/write_model.h"
#include "train/communicator.h"
#include "train/feature_match.h"
#include "train/loss.h"
#include "train/parameters.h"
#include "train/trainer.h"
#include "train/weights.h"

namespace edgewise {

// One run at a time. The job and the progress must outlive it.
class TrainSetup {
 public:
  // Reads everything; each of several processes calls it. `plan` decides the formats that a
  // quantizer is trained through. Errors: those of ReadTrainInputs, CheckTrainer, LoadParameters,
  // CheckFormats and LiveTeacher; kInvalidArgument (sequences longer than a context), kOutOfMemory.
  static Result<std::unique_ptr<TrainSetup>> Create(const TrainJob& job, const PlanOptions& plan,
                                                    Progress* progress);

  const TrainJob& job() const { return job_; }
  const TrainInputs& inputs() const { return *inputs_; }
  // Complete: steps, warm-up, whole sequences and formats are those of this job.
  const train::TrainerOptions& options() const { return options_; }
  train::Communicator& processes() const { return processes_; }
  LiveTeacher* teacher() { return teacher_.get(); }  // null: none
  Progress* progress() { return progress_; }
  // Where these are learned, and what will be written; else null and nothing.
  const train::BlockScales* scales() const { return scales_ ? &*scales_ : nullptr; }
  std::span<const TensorPlan> written() const { return written_; }

  // Weights before the first step; called once.
  train::TrainerState TakeFirstState() { return std::move(first_); }
  uint64_t learned_tokens() const;  // of a pass over the data
  // Parameters of the loss, which are learned behind the model's.
  size_t loss_parameters() const { return match_ ? match_->size() : 0; }
  // As TrainSummary::memory_bytes. Errors: those of TrainingBytes.
  Result<uint64_t> PlannedBytes() const;

  // RunTraining with this job's data, loss and base.
  Status Run(const train::TrainerOptions& options, const train::Corpus* held_out,
             train::TrainingObserver* observer, train::TrainerState* state);
  // Of the weights as they would be written; the divergence is KL(teacher | student), where the
  // teacher itself is there. Errors: those of train::HeldOutLoss.
  Result<train::HeldOut> MeasureHeldOut(const train::TrainerState& state);

 private:
  TrainSetup(const TrainJob& job, Progress* progress);
  Status Read(const PlanOptions& plan);
  Status ReadFirstState();
  Status ChooseFormats(const PlanOptions& plan);
  Status MakeLoss();
  train::WeightSource* base() { return frozen_ ? &*frozen_ : nullptr; }

  const TrainJob& job_;
  Progress* progress_;
  train::Communicator& processes_;
  ThreadPool pool_;
  std::optional<TrainInputs> inputs_;
  uint64_t inputs_bytes_ = 0;  // that the process has with them
  train::TrainerOptions options_;
  train::TrainerState first_;
  std::unique_ptr<train::FeatureMatch> match_;  // null: none
  std::unique_ptr<LiveTeacher> teacher_;
  std::unique_ptr<train::TokenLoss> loss_;
  std::optional<train::TeacherLoss> kl_;            // with a teacher: that alone
  std::optional<train::CheckpointWeights> frozen_;  // what adapters act on
  std::optional<train::BlockScales> scales_;        // where these are learned
  std::vector<TensorPlan> written_;                 // there
};

// The model with other weights, (ParameterLayout::size()).
Checkpoint WithWeights(const Checkpoint& model, std::vector<float> weights);

}  // namespace edgewise
