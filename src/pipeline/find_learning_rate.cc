#include "pipeline/find_learning_rate.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "base/process.h"
#include "base/strings.h"
#include "pipeline/train_setup.h"

namespace edgewise {
namespace {

constexpr double kFirstRate = 1e-6, kLastRate = 1;
constexpr uint64_t kSteps = 100, kFewestSteps = 20;
constexpr double kSmoothing = 0.9;  // share of the mean so far
constexpr double kBreakOut = 4;     // times the least loss

// Smooths the losses, and ends the run where they break out.
class Watcher final : public train::TrainingObserver {
 public:
  explicit Watcher(LearningRateReport* report) : report_(*report) {}

  Status OnStep(const train::StepReport& step, const train::TrainerState&) override {
    mean_ = kSmoothing * mean_ + (1 - kSmoothing) * step.loss;
    weight_ = kSmoothing * weight_ + (1 - kSmoothing);
    const double loss = mean_ / weight_;
    report_.broke_out = step.skipped || !(loss < kBreakOut * least_);
    if (report_.broke_out) return Error{Code::kCancelled, "the loss broke out"};
    least_ = std::min(least_, loss);
    report_.steps.push_back({step.learning_rate, loss});
    return Ok{};
  }

 private:
  LearningRateReport& report_;
  double mean_ = 0, weight_ = 0;
  double least_ = INFINITY;
};

}  // namespace

Result<LearningRateReport> FindLearningRate(const TrainJob& given, Progress* progress) {
  const double start = NowSeconds();
  TrainJob job = given;
  if (job.steps == 0) job.steps = kSteps;
  if (job.steps < kFewestSteps) {
    return MakeError(
        Code::kInvalidArgument, "%llu steps are too few to find a learning rate: take %llu or more",
        static_cast<unsigned long long>(job.steps), static_cast<unsigned long long>(kFewestSteps));
  }
  job.warmup = 0;
  job.trainer.schedule.kind = train::ScheduleKind::kRising;
  job.trainer.schedule.peak = kLastRate;
  job.trainer.schedule.last = kFirstRate / kLastRate;
  EW_TRY(CheckTrainJob(job));
  EW_TRY(const PlanOptions plan, OutputPlan(job));
  EW_TRY(const auto setup, TrainSetup::Create(job, plan, progress));
  train::TrainerState state = setup->TakeFirstState();
  LearningRateReport report;
  Watcher watcher(&report);
  const Status run = setup->Run(setup->options(), nullptr, &watcher, &state);
  if (!run && !report.broke_out) return run.error();
  if (report.steps.empty()) {
    return MakeError(Code::kBadData, "the first step's loss or gradient is not finite");
  }
  const auto least = std::ranges::min_element(report.steps, {}, &RatedLoss::loss);
  report.lowest_at = least->learning_rate;
  report.suggested = report.lowest_at / 10;
  report.seconds = NowSeconds() - start;
  return report;
}

Json ToJson(const LearningRateReport& r) {
  Json steps{JsonArray{}};
  for (const RatedLoss& step : r.steps) {
    steps.Append(Json().Set("learning_rate", step.learning_rate).Set("loss", step.loss));
  }
  return Json()
      .Set("steps", std::move(steps))
      .Set("broke_out", r.broke_out)
      .Set("lowest_at", r.lowest_at)
      .Set("suggested", r.suggested)
      .Set("seconds", r.seconds);
}

}  // namespace edgewise
