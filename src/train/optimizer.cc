#include "train/optimizer.h"

#include <cmath>

#include "base/strings.h"

namespace edgewise::train {
namespace {

constexpr uint32_t kMaxSkipped = 10;  // in a row

void Update(const TrainerOptions& options, size_t matrix_size, const StepReport& report, Ops* ops,
            const float* gradients, TrainerState* state) {
  const double norm = report.gradient_norm;
  const bool clips = options.clip > 0 && norm > options.clip;
  const AdamStep step = {.learning_rate = static_cast<float>(report.learning_rate),
                         .beta1 = static_cast<float>(options.beta1),
                         .beta2 = static_cast<float>(options.beta2),
                         .eps = static_cast<float>(options.eps),
                         .weight_decay = static_cast<float>(options.weight_decay),
                         .decayed = matrix_size,
                         .gradient_scale = clips ? static_cast<float>(options.clip / norm) : 1.0f,
                         .step = ++state->updates};
  const size_t size = state->weights.size();
  ops->Adam(step, gradients, size, state->moments(), state->weights.data());
  if (state->ema.empty()) return;
  ops->Average(static_cast<float>(options.ema), state->weights.data(), size, state->ema.data());
}

}  // namespace

void ResetMoments(const TrainerOptions& options, TrainerState* state) {
  const size_t size = state->weights.size();
  const bool codes = options.moments == MomentFormat::k8Bit;
  for (std::vector<float>* values : {&state->mean, &state->variance}) {
    values->assign(codes ? MomentBlocks(size) : size, 0.0f);
  }
  if (!codes) return;
  state->mean_codes.assign(size, MomentGrid::Signed().Encode(0));
  state->variance_codes.assign(size, MomentGrid::Unsigned().Encode(0));
}

Status TakeStep(const TrainerOptions& options, size_t matrix_size, Ops* ops, float* gradients,
                TrainerState* state, StepReport* report) {
  if (options.network.keep_zeros && options.network.lora.rank == 0) {
    ops->KeepZeros(state->weights.data(), state->moments(), matrix_size, gradients);
  }
  report->step = ++state->step;
  report->gradient_norm = std::sqrt(ops->SumOfSquares(gradients, state->weights.size()));
  report->learning_rate = options.schedule.LearningRate(report->step);
  report->skipped =
      !std::isfinite(report->loss + report->layer_loss) || !std::isfinite(report->gradient_norm);
  if (!report->skipped) Update(options, matrix_size, *report, ops, gradients, state);
  state->skipped = report->skipped ? state->skipped + 1 : 0;
  if (state->skipped < kMaxSkipped) return Ok{};
  return MakeError(Code::kBadData,
                   "step %llu: the gradients of %u steps in a row were not finite; try a lower "
                   "learning rate, or F32",
                   static_cast<unsigned long long>(report->step), kMaxSkipped);
}

}  // namespace edgewise::train
