// Sensitivity: what each tensor in each format costs the whole model, in nats of KL divergence.
//
// To first order KL is a quadratic form of the error in a layer's output, so a tensor in format f
// costs k E_f: E_f is the output error tr((W - Q) H (W - Q)^T) on some rows, with the encoder that
// will be used, and k comes from one forward pass with that tensor alone quantized. Costs of
// tensors add up. The text is the model's own: sampled from it, the mean of log p - log q over it
// is KL of the distributions of whole texts.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/cost.h"
#include "base/progress.h"
#include "base/result.h"
#include "calibrate/calibration.h"
#include "calibrate/cost.h"
#include "compress/quantize/layerwise.h"
#include "compress/quantize/quantize.h"

namespace edgewise {

struct FormatCost {
  DType type;
  double kl;  // nats per token
};

struct TensorCosts {
  size_t entry;                     // of the plan
  std::vector<FormatCost> formats;  // CandidateFormats
};

// Every format that a tensor of the plan may get, as llama.cpp loads them: those in blocks that fit
// its rows, and F16. Empty for tensors that stay what they are: those not in a block format, and
// those whose format has a reason.
std::vector<DType> CandidateFormats(const TensorPlan& entry);

// The encoder of a tensor's rows.
enum class RowEncoder : uint8_t { kPlain, kWeighted, kFeedback };

struct SensitivityOptions {
  RowEncoder encoder = RowEncoder::kWeighted;
  int32_t first_token = 0;  // of each sampled sequence
  size_t sequences = 8;
  size_t tokens = 128;      // of each
  size_t error_rows = 256;  // of each tensor, that errors are measured on
};

// Measures the entries of `plan` that have candidates. In
// memory: the model, one tensor in F32 and its second moments, and the log-probabilities of all
// sampled tokens over the vocabulary. Errors: those of Model::Load, CalibrationFile::Hessian and
// ErrorMetric; kBadData (NaN or infinity; moments of other columns); kCancelled.
Result<std::vector<TensorCosts>> MeasureSensitivity(const Checkpoint& checkpoint,
                                                    std::span<const TensorPlan> plan,
                                                    const CalibrationFile& calibration,
                                                    const SensitivityOptions& options,
                                                    ThreadPool* pool, Progress* progress);

// Of MeasureSensitivity with a calibration such as `trial` tells of. `plan` has the formats of its
// first probes. Errors: those of Model::Load, LoadRows and ErrorMetric.
Result<Cost> SensitivityCost(const Checkpoint& checkpoint, std::span<const TensorPlan> plan,
                             const LayerTrial& trial, const SensitivityOptions& options,
                             ThreadPool* pool);

}  // namespace edgewise
