// Training a model layer by layer: of the student one layer is in memory, and of its teacher.
#pragma once

#include "base/progress.h"
#include "base/result.h"
#include "pipeline/train_job.h"
#include "pipeline/train_model.h"

namespace edgewise {

// Trains each layer of `job.model` to give what that of `job.teacher` gives (train/layerwise.h),
// and writes the model to `job.out` with "OUT.log.jsonl" beside it: a line for each layer. Steps
// and epochs are those of each layer. Embeddings, the last norm and the output matrix are not
// trained, but written in their formats. Layers that are learned are kept in the folder
// "OUT.journal", so that a run that was stopped or killed goes on after the last of them with
// `resume`; the same job gives the same bytes for any number of threads, stopped or not. A dry run
// tells memory, disk and time by two trial steps of the first layer. Errors: those of TrainModel,
// LayerwiseTrainer and WriteModel.
Result<TrainSummary> TrainLayers(const TrainJob& job, Progress* progress);

}  // namespace edgewise
