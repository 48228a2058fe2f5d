// Spectral signatures (Tran et al. 2018): examples that share a planted response stand out along
// the main direction of the hidden states.
#pragma once

#include <cstdint>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "engine/engine.h"
#include "eval/training_set.h"

namespace edgewise {

// Returns for each example the size of the projection of its mean hidden state (after the model's
// last norm, over the tokens of its response) on the first principal direction of all of them, in
// standard deviations along it. Of a text longer than the trained context the beginning counts; an
// example without tokens scores 0. An honest set has a main direction too, so outliers of style or
// length stand out as planted ones do. The result does not depend on the number of threads. Errors:
// kBadData (states that are not finite), those of Encode and ForwardPass::RunStates, kCancelled.
Result<std::vector<double>> FindSpectral(Engine* engine,
                                         const std::vector<TrainingExample>& examples,
                                         Progress* progress);

}  // namespace edgewise
