// Targets of error feedback where the layers before are quantized already (GPTAQ, Li et al. 2025,
// their asymmetric calibration): a matrix sees inputs q in place of f and should still give W f.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "compress/quantize/feedback.h"

namespace edgewise {

// Returns the matrix that gives the outputs of `w` (rows, n) best when its inputs are q:
// W + W D H^-1, D = sum (f - q) q^T over tokens and H the damped sum q q^T of `metric`.
// `transposed` is D^T (n, n). Weights that are 0 stay 0. The result does not depend on the number
// of threads.
std::vector<float> CorrectTargets(std::span<const float> w, const ErrorMetric& metric,
                                  std::span<const float> transposed, ThreadPool* pool);

}  // namespace edgewise
