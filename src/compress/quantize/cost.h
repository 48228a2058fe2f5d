// What quantizing a model costs, from trials on a few rows of each kind of matrix.
#pragma once

#include <span>

#include "base/cost.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "calibrate/calibration.h"
#include "calibrate/cost.h"
#include "compress/quantize/layerwise.h"
#include "compress/quantize/quantize.h"

namespace edgewise {

// The columns of second moments that FeedbackCost wants: costs of more are extrapolated.
inline constexpr size_t kTrialColumns = 2048;

// How error feedback comes to the second moments.
enum class MomentSource : uint8_t {
  kCalibration,  // a file has them
  kSequences,    // true-sequential: the sequences run through each layer input by input
};

// Of QuantizeByCalibration or QuantizeLayerwise. Errors: those of Checkpoint::Load and ErrorMetric.
Result<Cost> FeedbackCost(const Checkpoint& checkpoint, std::span<const TensorPlan> plan,
                          const LayerTrial& trial, MomentSource source,
                          const TokenSequences& sequences, ThreadPool* pool);

// Of Checkpoint::Load and EncodeTensor for all entries, weighted by importance or not. Errors:
// those of both.
Result<Cost> EncodingCost(const Checkpoint& checkpoint, std::span<const TensorPlan> plan,
                          bool weighted, ThreadPool* pool);

// Of ScaleInputs with ScaleMethod::kAwq; the other one costs no more than loading the weights.
// Errors: those of LoadRows.
Result<Cost> ScalingCost(const Checkpoint& checkpoint, std::span<const TensorPlan> plan,
                         const LayerTrial& trial, ThreadPool* pool);

}  // namespace edgewise
