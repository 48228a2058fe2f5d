// Column scaling: the same model with the columns of matrices multiplied by s and what gives their
// inputs divided by s, so that quantization hurts less where inputs are large.
//
// s goes into the rows or the norm before: attn_norm for q, k, v; ffn_norm for gate and up; the
// rows of up for down; the rows of v for attn_output, shared by the query heads of a key/value
// head. The result is an ordinary model of the same architecture. The output matrix is not scaled:
// its norm would have to give way, and a tied one has none of its own.
#pragma once

#include <cstdint>
#include <span>

#include "base/progress.h"
#include "base/result.h"
#include "calibrate/calibration.h"
#include "compress/quantize/quantize.h"

namespace edgewise {

enum class ScaleMethod : uint8_t {
  kNone,
  // AWQ (Lin et al. 2023): s = mean|x|^a / mean|w|^(1 - a), of 20 powers a for each input (and
  // s = 1) the one with the least output error of the matrices that read it, measured by second
  // moments with each matrix' own encoder.
  kAwq,
  // SmoothQuant (Xiao et al. 2023): s = sqrt(max|x| / max|w|), for activations in 8 bits.
  kSmooth,
};

// What the search of AWQ looks at: rows of each matrix, and scales of each input.
inline constexpr size_t kScaleSearchRows = 256;
inline constexpr int kScalePowers = 20;  // 0, 0.05, ..., 0.95
inline constexpr int kScaleTrials = kScalePowers + 1;

struct Scaling {
  Checkpoint model;             // its changed tensors are F32
  CalibrationFile calibration;  // of `model`
  size_t inputs = 0;            // that could be scaled
  size_t scaled = 0;
};

// Scales the inputs of the matrices that `plan` puts into block formats. `method` is not kNone.
// In memory: one matrix in F32 and its second moments. Results do not depend on the number of
// threads. Errors: kInvalidArgument (the calibration lacks magnitudes or second moments, or is of
// another model), those of CalibrationFile and Checkpoint::Load; kBadData (NaN or infinity);
// kCancelled.
Result<Scaling> ScaleInputs(const Checkpoint& model, std::span<const TensorPlan> plan,
                            const CalibrationFile& calibration, ScaleMethod method,
                            ThreadPool* pool, Progress* progress);

}  // namespace edgewise
