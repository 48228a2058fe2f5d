// What calibration costs, from a trial of one layer with a few sequences.
#pragma once

#include <cstdint>
#include <vector>

#include "base/cost.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "calibrate/calibration.h"
#include "calibrate/walk.h"
#include "model/checkpoint.h"

namespace edgewise {

// One kind of input of a layer's linear layers.
struct InputTrial {
  size_t columns = 0;    // 0: the architecture has no such input
  double visit = 0;      // seconds a token until a layer's pass has reached it
  double moments = 0;    // seconds a token of ColumnMoments
  double products = 0;   // seconds a token of ProductSum
  std::vector<float> h;  // (kept, kept): the second moments of the trial's tokens
  size_t kept = 0;       // first columns that h is of
};

// The first layer, which the others are taken to be like.
struct LayerTrial {
  double load = 0;     // seconds
  double pass = 0;     // seconds a token
  uint64_t bytes = 0;  // of the layer, its scratch memory and the embedding, without streams
  InputTrial inputs[kLinearInputs];
};

// The input with so many columns; there must be one. As far as costs go, inputs of one width are
// alike.
const InputTrial& FindInput(const LayerTrial& trial, size_t columns);

// Runs some of `sequences` through the first layer. Each h is of `kept_columns` at most. Errors:
// those of ActivationWalk and ProductSum.
Result<LayerTrial> TryLayer(const Checkpoint& checkpoint, const TokenSequences& sequences,
                            size_t kept_columns, ThreadPool* pool);

// Of the residual streams of all `sequences`, beside what a LayerTrial has seen.
uint64_t StreamBytes(const ModelSpec& spec, const TokenSequences& sequences);
// Of summing second moments of `columns` inputs.
uint64_t ProductSumBytes(size_t columns, int threads);

// Of Calibrate for all sequences in parts of `part_tokens`. `write_rate` is in bytes a second.
Cost CalibrationCost(const ModelSpec& spec, const LayerTrial& trial,
                     const TokenSequences& sequences, uint64_t part_tokens, bool hessians,
                     double write_rate, int threads);

}  // namespace edgewise
