// What pruning a model costs, from trials on a corner of each matrix of the first layer.
#pragma once

#include "base/cost.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "calibrate/cost.h"
#include "compress/prune/prune.h"
#include "model/checkpoint.h"

namespace edgewise {

// Of PruneLayerwise, or of PruneByCalibration where `sequences` are empty: then only the columns
// and second moments of `trial` are used. Errors: those of the methods and of Checkpoint::Load.
Result<Cost> PruningCost(const Checkpoint& checkpoint, const PruneOptions& options,
                         const LayerTrial& trial, const TokenSequences& sequences,
                         ThreadPool* pool);

}  // namespace edgewise
