// Layers and residual channels: what structured pruning chooses for the whole model at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "calibrate/walk.h"
#include "compress/prune/reconstruct.h"
#include "compress/prune/structured.h"
#include "model/checkpoint.h"

namespace edgewise {

// Uniform in [0, 1).
std::vector<double> RandomScores(uint32_t count, uint64_t seed);

struct GlobalChoice {
  std::vector<uint32_t> layers, channels;  // kept
  double channel_score = 0;                // share of the scores that goes
  // For the norms before attention and feed-forward of each kept layer, then the last norm: RMSNorm
  // divides by the root mean square of the channels left, which is this factor of what it was.
  std::vector<float> norm_scales;
};

// Chooses by one walk over the model as it is, where the method or the norms need one. Errors:
// those of ActivationWalk and LoadRows; kCancelled.
Result<GlobalChoice> ChooseGlobally(const Checkpoint& model, const StructureOptions& options,
                                    const StructureSizes& kept, const TokenSequences& sequences,
                                    ThreadPool* pool, Progress* progress);

// Returns `model` with the gains of its norms times GlobalChoice::norm_scales.
Checkpoint WithScaledNorms(const Checkpoint& model, std::span<const float> scales);

using RowsSink = FunctionRef<void(const float* rows, size_t n, size_t stride)>;

// The least squares problem of matrices that read fewer channels of a narrower model's walk, and
// are to give what those of the wider one's gave.
class ChannelFit {
 public:
  // visit(walk, sink) shows the same inputs of either walk, in the same order. Errors: those of
  // `visit`, ProductSum and Reconstruction.
  static Result<ChannelFit> Create(ActivationWalk* wide, ActivationWalk* narrow,
                                   FunctionRef<Status(ActivationWalk* walk, RowsSink sink)> visit,
                                   ThreadPool* pool);
  // Moves `values` (rows, narrow channels) towards the output of `w` (rows, wide channels).
  void Run(std::span<const float> w, ThreadPool* pool, std::span<float> values) const;

 private:
  ChannelFit(Reconstruction fit, size_t wide, size_t narrow)
      : fit_(std::move(fit)), wide_(wide), narrow_(narrow) {}
  Reconstruction fit_;
  size_t wide_, narrow_;
};

}  // namespace edgewise
