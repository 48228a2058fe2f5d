// One layer of a network by itself, from residual stream to residual stream.
#include <algorithm>

#include "train/network_impl.h"

namespace edgewise::train {

Status Network::RunLayer(const Batch& batch, uint32_t layer, const LayerWeights& weights,
                         const float* x, float* y) {
  Impl& m = *impl_;
  EW_TRY(m.Begin(batch, false, 1));
  const size_t count = m.n * m.spec.dim;
  std::copy_n(x, count, m.Residual(layer));
  const Impl::Pass pass;
  m.ForwardLayer({pass, layer, weights, {}, m.State(layer)});
  std::copy_n(m.Residual(layer + 1), count, y);
  return Ok{};
}

Result<double> Network::TrainLayer(const Batch& batch, uint32_t layer, const LayerWeights& weights,
                                   const float* x, const float* targets, float scale,
                                   const LayerGradients& gradients) {
  Impl& m = *impl_;
  EW_TRY(m.Begin(batch, true, 1));
  const size_t count = m.n * m.spec.dim;
  const Impl::Pass pass;
  const Impl::LayerPass at = {pass, layer, weights, gradients, m.State(layer)};
  std::copy_n(x, count, m.Residual(layer));
  m.ForwardLayer(at);
  const float* y = m.Residual(layer + 1);
  double sum = 0;
  for (size_t i = 0; i < count; ++i) {
    const float difference = y[i] - targets[i];
    sum += static_cast<double>(difference) * static_cast<double>(difference);
    m.dx[i] = 2.0f * scale * difference;
  }
  m.BackwardLayer(at);
  return sum;
}

Result<double> Network::EvaluateStream(const Batch& batch, WeightSource* weights, const float* x,
                                       TokenLoss* loss) {
  Impl& m = *impl_;
  EW_TRY(m.Begin(batch, false, 1));
  std::copy_n(x, m.n * m.spec.dim, m.Residual(m.spec.n_layers));
  return m.Loss(batch, {.weights = weights}, loss, 1.0f);
}

}  // namespace edgewise::train
