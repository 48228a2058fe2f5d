// Pruning of all layers: against what a calibration kept, or layer by layer against the inputs that
// the layers pruned before give. Pruned are the matrices of layers; embedding and output matrix
// stay.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "calibrate/calibration.h"
#include "calibrate/walk.h"
#include "compress/prune/score.h"
#include "compress/prune/sparsity.h"
#include "model/checkpoint.h"

namespace edgewise {

enum class PruneMethod : uint8_t {
  kMagnitude,        // score.h, weights of a matrix compete
  kRandom,           // score.h, weights of a matrix compete
  kWanda,            // score.h, weights of a row compete
  kRia,              // score.h, weights of a row compete
  kSparseGpt,        // sparsegpt.h
  kAlps,             // alps.h
  kGlobalMagnitude,  // score.h, all weights of the model compete; unstructured only
  kMagnitudeDsnot,   // magnitude, then the swaps of dsnot.h
  kWandaDsnot,       // wanda, then the same
};

// Errors: kInvalidArgument, listing the names.
Result<PruneMethod> ParsePruneMethod(std::string_view name);
const char* PruneMethodName(PruneMethod method);
// True for the methods that change the weights they keep, and so need second moments.
bool UpdatesWeights(PruneMethod method);
// Of the methods that do not.
ScoreMethod ScoreOf(PruneMethod method);
// True for the methods that look at the inputs, and so need a calibration.
bool NeedsCalibration(PruneMethod method);
// True for the methods that swap weights by DSnoT; they need the means of inputs, which only a text
// gives.
bool SwapsWeights(PruneMethod method);

struct PruneOptions {
  PruneMethod method = PruneMethod::kMagnitude;
  Sparsity sparsity;
  uint64_t seed = 1;  // of kRandom
  bool owl = false;   // unstructured: layers keep the more, the more outliers they have (owl.h)
};

// What pruning did to a matrix.
struct PruneEffect {
  double density = 1;         // of what is left
  double relative_error = 0;  // of the weights: |W - Q| / |W|
};

// Takes tensor `index` of the checkpoint after pruning, (rows, columns) whole.
using PruneSink =
    FunctionRef<Status(size_t index, std::span<const float> values, const PruneEffect& effect)>;

// True for the tensors that are pruned.
bool IsPrunable(const CheckpointTensor& tensor);

// Errors: kInvalidArgument (N:M does not fit the rows of a matrix, which is named, or the method or
// OWL; ratio 0).
Status CheckPruning(const Checkpoint& checkpoint, const PruneOptions& options);

// Prunes every matrix. `calibration` may be null for methods that need none. In memory: one matrix
// and its second moments. Errors: those of CheckPruning, CalibrationFile, the methods and `sink`;
// kInvalidArgument (a matrix has as many zeros already); kCancelled.
Status PruneByCalibration(const Checkpoint& checkpoint, const PruneOptions& options,
                          const CalibrationFile* calibration, ThreadPool* pool, Progress* progress,
                          PruneSink sink);

// Prunes every matrix in the order of the forward pass, for methods that need a calibration. In
// memory: one layer in F32, its inputs' second moments, and the residual streams of all tokens.
// Errors: those above and of ActivationWalk.
Status PruneLayerwise(const Checkpoint& checkpoint, const PruneOptions& options,
                      TokenSequences sequences, ThreadPool* pool, Progress* progress,
                      PruneSink sink);

}  // namespace edgewise
