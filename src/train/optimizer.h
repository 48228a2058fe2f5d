// One step of AdamW: gradients become a change of the weights.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "train/ops.h"
#include "train/trainer.h"

namespace edgewise::train {

// Sets the moments of state->weights to zero, in the format of the options.
void ResetMoments(const TrainerOptions& options, TrainerState* state);

// Changes state->weights, of which `matrix_size` are those of matrices, by their gradients, which
// zeros that must stay and clipping change before, and counts the step. Fills the report, whose
// loss is given. Gradients that are not finite are left out. Errors: kBadData (of ten steps in a
// row).
Status TakeStep(const TrainerOptions& options, size_t matrix_size, Ops* ops, float* gradients,
                TrainerState* state, StepReport* report);

}  // namespace edgewise::train
