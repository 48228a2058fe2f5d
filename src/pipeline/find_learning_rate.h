// A range test of learning rates (Smith 2017): the rate rises from step to step until the loss
// breaks out, and the losses tell which rate to train with.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "pipeline/train_job.h"

namespace edgewise {

struct RatedLoss {
  double learning_rate = 0;
  double loss = 0;  // smoothed, in nats
};

struct LearningRateReport {
  std::vector<RatedLoss> steps;
  bool broke_out = false;  // the loss grew to four times its least, or was not finite
  double lowest_at = 0;    // the rate at which the loss was least
  // A tenth of that: the highest rate that was still learning well, with room for a long run.
  double suggested = 0;
  double seconds = 0;
};

// Runs `job.steps` steps, or 100, with rates from 1e-6 to 1, and writes nothing. Errors: those of
// TrainModel up to its first step, and of RunTraining; kInvalidArgument (fewer than 20 steps).
Result<LearningRateReport> FindLearningRate(const TrainJob& job, Progress* progress);

// The members of `edgewise finetune --find-learning-rate --json`.
Json ToJson(const LearningRateReport& report);

}  // namespace edgewise
