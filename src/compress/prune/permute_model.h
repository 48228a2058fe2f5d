// Channel permutation of a whole model: the inputs of attn_output and ffn_down are put in the order
// in which N:M keeps most, and the rows that give them too, so that the model computes the same.
#pragma once

#include "base/result.h"
#include "base/thread_pool.h"
#include "calibrate/walk.h"
#include "compress/prune/method.h"
#include "model/checkpoint.h"

namespace edgewise {

struct PermutedModel {
  Checkpoint model;         // its changed tensors are F32
  double score_before = 0;  // kept by N:M of these inputs' scores, as a share of all of them
  double score_after = 0;
};

// Orders the inputs of `model` for N:M `options.sparsity` by the scores of its method, or RIA's for
// methods without (permute.h). ffn_down: any order, which the rows of gate and up take.
// attn_output: within a head, the same order for all query heads that share a value head, which the
// rows of v take; where M does not divide a head, none. The inputs of q, k, v, gate and up are the
// residual stream, whose order is one for all layers, and stay. `sequences` run through the model
// for methods that look at inputs. Does not depend on the number of threads. Errors:
// kInvalidArgument (not N:M, no scores); those of ActivationWalk, Scores and PermuteChannels.
Result<PermutedModel> PermuteModel(const Checkpoint& model, const PruneOptions& options,
                                   const TokenSequences& sequences, ThreadPool* pool);

// Errors: kInvalidArgument (`options` has nothing that an order of channels helps).
Status CheckPermutation(const PruneOptions& options);

}  // namespace edgewise
