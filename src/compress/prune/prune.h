// Pruning of all layers: against what a calibration kept, or layer by layer against the inputs that
// the layers pruned before give. Pruned are the matrices of layers; embedding and output matrix
// stay.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "calibrate/calibration.h"
#include "calibrate/walk.h"
#include "compress/prune/method.h"
#include "model/checkpoint.h"
#include "tensor/tensor.h"

namespace edgewise {

// What pruning did to a matrix.
struct PruneEffect {
  double density = 1;         // of what is left
  double relative_error = 0;  // of the weights: |W - Q| / |W|
};
PruneEffect EffectOf(std::span<const float> before, std::span<const float> after);
// The share of values that are 0.
double ZeroShare(std::span<const float> values);

// Takes tensor `index` of the checkpoint, (rows, columns) whole, and rounds `after` to what it
// keeps of it, which is what the layers after see.
using PruneSink =
    FunctionRef<Status(size_t index, std::span<const float> before, std::span<float> after)>;

// Returns tensor `index` as an earlier run has pruned it, or nothing; it is not pruned again then,
// but the sink sees it. Null: nothing is pruned yet.
using PrunedBefore = std::function<std::optional<TensorView>(size_t index)>;

// True for the tensors that are pruned.
bool IsPrunable(const CheckpointTensor& tensor);

// Errors: kInvalidArgument (N:M does not fit the rows of a matrix, which is named, or the method or
// OWL; ratio 0; options that do not go together; those of MaskSet::Check).
Status CheckPruning(const Checkpoint& checkpoint, const PruneOptions& options);

// Prunes every matrix. `calibration` may be null for methods that need none. In memory: one matrix
// and its second moments. Errors: those of CheckPruning, CalibrationFile, the methods and `sink`;
// kInvalidArgument (a matrix has as many zeros already); kCancelled.
Status PruneByCalibration(const Checkpoint& checkpoint, const PruneOptions& options,
                          const CalibrationFile* calibration, const PrunedBefore& finished,
                          ThreadPool* pool, Progress* progress, PruneSink sink);

// Prunes every matrix in the order of the forward pass, for methods that need a calibration. In
// memory: one layer in F32, its inputs' second moments, and the residual streams of all tokens.
// Errors: those above and of ActivationWalk.
Status PruneLayerwise(const Checkpoint& checkpoint, const PruneOptions& options,
                      TokenSequences sequences, const PrunedBefore& finished, ThreadPool* pool,
                      Progress* progress, PruneSink sink);

}  // namespace edgewise
