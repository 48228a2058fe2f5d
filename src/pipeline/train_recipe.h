// What a training job's output says of how it was made.
#pragma once

#include "base/json.h"
#include "compress/quantize/presets.h"
#include "pipeline/train_inputs.h"
#include "pipeline/train_job.h"
#include "train/trainer.h"

namespace edgewise {

// What decides the result of a job, and nothing else; `options` are those that it runs with.
// Without a preset the model's formats stay.
Json TrainRecipe(const TrainJob& job, const Preset* preset, const TrainInputs& inputs,
                 const train::TrainerOptions& options);

}  // namespace edgewise
