// Quantization with error feedback (feedback.h) of all layers: against the second moments that a
// calibration kept, or layer by layer against the inputs that the layers quantized before give
// (true-sequential GPTQ).
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "base/progress.h"
#include "base/result.h"
#include "calibrate/calibration.h"
#include "calibrate/walk.h"
#include "compress/quantize/feedback.h"
#include "compress/quantize/quantize.h"

namespace edgewise {

struct LayerwiseOptions {
  double damping = 0.03;  // of the mean of the Hessian's diagonal
  FeedbackOptions feedback;
  // Returns the blocks of plan entry `index` where an earlier run has quantized it, else nothing.
  // It is not quantized again then, and the sink does not see it. Null: nothing is quantized yet.
  std::function<std::span<const std::byte>(size_t index)> finished;
};

// Takes the blocks of plan entry `index`, whole.
using BlockSink =
    FunctionRef<Status(size_t index, std::span<const std::byte> blocks, const EncodeError& error)>;

// True for the entries that QuantizeLayerwise handles: matrices of layers that become a block
// format.
bool IsLayerwise(const TensorPlan& entry);

// Quantizes those entries of `plan` by the second moments of `calibration`. Errors: those of
// CalibrationFile::Hessian, ErrorMetric and `sink`; kBadData (NaN or infinity in a weight; the
// moments are of other columns); kCancelled.
Status QuantizeByCalibration(const Checkpoint& checkpoint, std::span<const TensorPlan> plan,
                             const CalibrationFile& calibration, const LayerwiseOptions& options,
                             ThreadPool* pool, Progress* progress, BlockSink sink);

// Quantizes those entries of `plan`, in the order of the forward pass. In memory: a layer of the
// model and of the original in F32, the second moments of one input and its cross moments with the
// original's, and the residual streams of both up to ScratchMemory::kInMemory each. Errors: those
// of ActivationWalk, ErrorMetric and `sink`; kBadData (NaN, infinity or a value too large for its
// format); kCancelled.
Status QuantizeLayerwise(const Checkpoint& checkpoint, std::span<const TensorPlan> plan,
                         TokenSequences sequences, const LayerwiseOptions& options,
                         ThreadPool* pool, Progress* progress, BlockSink sink);

}  // namespace edgewise
