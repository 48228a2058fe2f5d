#include "compress/prune/input_metric.h"

#include <utility>

#include "base/strings.h"
#include "compress/quantize/output_error.h"

namespace edgewise {

Result<InputMetric> InputMetric::Create(std::vector<float> h, size_t n, ThreadPool* pool,
                                        double damping) {
  if (n == 0 || h.size() != n * n) {
    return MakeError(Code::kInvalidArgument,
                     "second moments of %zu inputs take %zu values, not %zu: calibrate this model",
                     n, n * n, h.size());
  }
  InputMetric input;
  input.dead.resize(n);
  double trace = 0;
  size_t live = 0;
  for (size_t j = 0; j < n; ++j) {
    const float diagonal = h[j * n + j];
    trace += diagonal;
    input.dead[j] = diagonal == 0 ? 1 : 0;
    live += diagonal == 0 ? 0 : 1;
  }
  const auto mean = static_cast<float>(live > 0 ? trace / static_cast<double>(live) : 1);
  for (size_t j = 0; j < n; ++j) {
    if (input.dead[j] != 0) h[j * n + j] = mean;
  }
  EW_TRY(input.metric, ErrorMetric::Create(std::move(h), n, damping, pool));
  return input;
}

Result<std::vector<float>> InputMetric::LiveWeights(std::span<const float> w) const {
  if (w.size() % n() != 0) {
    return MakeError(Code::kInvalidArgument,
                     "%zu weights do not form rows of the %zu columns that were calibrated: "
                     "calibrate this model",
                     w.size(), n());
  }
  EW_TRY(CheckFinite("to prune", w, n()));
  std::vector<float> live(w.begin(), w.end());
  for (size_t i = 0; i < live.size(); ++i) {
    if (dead[i % n()] != 0) live[i] = 0;
  }
  return live;
}

double ReconstructionError(std::span<const float> w, std::span<const float> q,
                           std::span<const float> h, size_t n, ThreadPool* pool) {
  return OutputError(w, n, DType::kF32, std::as_bytes(q), h, pool);
}

}  // namespace edgewise
