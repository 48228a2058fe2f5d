// Refit: the values that serve a given mask best.
#pragma once

#include <span>

#include "base/thread_pool.h"
#include "compress/prune/input_metric.h"
#include "compress/prune/mask.h"

namespace edgewise {

// Moves the kept of `values` (rows, n), 0 elsewhere, towards the least tr((W - Q) H (W - Q)^T) for
// weights `w` (rows, n) with the damped H: at most `steps` of the conjugate gradient method for
// each row, preconditioned by H's diagonal. Does not depend on the number of threads.
void RefitKept(std::span<const float> w, const ErrorMetric& metric, const Mask& mask, int steps,
               ThreadPool* pool, std::span<float> values);

}  // namespace edgewise
