// One layer by itself: the whole network's arithmetic, and gradients that differences confirm.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "base/rng.h"
#include "train/network.h"
#include "train/test_models.h"

namespace edgewise::train {
namespace {

constexpr float kScale = 0.5f;

// A network of a tiny model, its weights and the stream before its first layer.
struct Streamed {
  explicit Streamed(const TinyModel& tiny, int threads = 2)
      : pool(threads),
        ops(MakeCpuOps(&pool, Precision::kF32)),
        weights(Parameters(tiny, &spec)),
        layout(spec),
        batch(PackedBatch(spec.vocab_size)) {
    network.emplace(*Network::Create(spec, ops.get(), {}));
    x.resize(batch.size() * spec.dim);
    ops->Embed(batch.tokens, weights.data() + layout.embedding(), spec.dim, spec.embedding_scale,
               x.data());
  }
  LayerWeights Layer(uint32_t l) const { return In<const float>(weights.data(), layout.layer(l)); }
  std::vector<float> After(uint32_t l, const std::vector<float>& before) {
    std::vector<float> y(before.size());
    REQUIRE(network->RunLayer(batch, l, Layer(l), before.data(), y.data()));
    return y;
  }
  double SquaredError(uint32_t l, const std::vector<float>& targets) {
    const std::vector<float> y = After(l, x);
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      sum += (static_cast<double>(y[i]) - static_cast<double>(targets[i])) *
             (static_cast<double>(y[i]) - static_cast<double>(targets[i]));
    }
    return sum;
  }

  ThreadPool pool;
  std::unique_ptr<Ops> ops;
  ModelSpec spec;
  std::vector<float> weights;
  ParameterLayout layout;
  Batch batch;
  std::optional<Network> network;
  std::vector<float> x;
};

TEST_CASE("every architecture: layer after layer gives the loss of the whole, to the last bit") {
  for (const NamedModel& trained : TrainedModels()) {
    CAPTURE(trained.name);
    Streamed model(trained.model);
    CrossEntropyLoss loss(&model.pool);
    const auto whole = model.network->Evaluate(model.batch, model.weights.data(), &loss);
    REQUIRE(whole);
    std::vector<float> x = model.x;
    for (uint32_t l = 0; l < model.spec.n_layers; ++l) x = model.After(l, x);
    FloatWeights weights(model.layout, model.weights.data());
    const auto streamed = model.network->EvaluateStream(model.batch, &weights, x.data(), &loss);
    REQUIRE(streamed);
    CHECK(*streamed == *whole);
  }
}

// Moves one parameter of the layer both ways in a random direction.
void CheckParameter(Streamed* model, uint32_t l, const Parameter& whole, const float* gradients,
                    const std::vector<float>& targets) {
  CAPTURE(whole.name);
  Rng rng(whole.name.size() * 31 + static_cast<uint64_t>(whole.name.back()));
  const size_t count = whole.shape.elements();
  float* values = model->weights.data() + whole.offset;
  const std::vector<float> before(values, values + count);
  std::vector<float> move(count);
  for (float& m : move) m = static_cast<float>(2e-4 * rng.Gaussian());
  double expected = 0, typical = 0;
  for (size_t i = 0; i < count; ++i) {
    expected += 2 * static_cast<double>(move[i]) * static_cast<double>(gradients[i]);
    typical += 4 * static_cast<double>(move[i] * move[i]) *
               static_cast<double>(gradients[i] * gradients[i]);
  }
  CHECK(typical > 0);
  double errors[2];
  for (const int sign : {0, 1}) {
    for (size_t i = 0; i < count; ++i) values[i] = before[i] + (sign == 0 ? move[i] : -move[i]);
    errors[sign] = model->SquaredError(l, targets);
  }
  std::copy(before.begin(), before.end(), values);
  const double difference = static_cast<double>(kScale) * (errors[0] - errors[1]);
  const double rounding = 1.5e-7 * static_cast<double>(kScale) * (errors[0] + errors[1]);  // of F32
  CHECK(std::abs(difference - expected) <
        1e-2 * (std::sqrt(typical) + std::abs(expected)) + rounding);
}

TEST_CASE("every architecture: differences confirm the gradients of a layer") {
  for (const NamedModel& trained : TrainedModels()) {
    CAPTURE(trained.name);
    Streamed model(trained.model);
    for (uint32_t l = 0; l < model.spec.n_layers; ++l) {
      const LayerLayout layer(model.layout, l);
      std::vector<float> targets = model.After(l, model.x), gradients(layer.size);
      Rng rng(l);
      for (float& target : targets) target += static_cast<float>(0.1 * rng.Gaussian());
      const auto error =
          model.network->TrainLayer(model.batch, l, model.Layer(l), model.x.data(), targets.data(),
                                    kScale, In(gradients.data(), layer.offsets));
      REQUIRE(error);
      CHECK(*error == doctest::Approx(model.SquaredError(l, targets)));
      size_t next = 0;
      for (const Parameter& whole : model.layout.all()) {
        if (next == layer.parameters.size() || whole.name != layer.parameters[next].name) continue;
        CheckParameter(&model, l, whole, gradients.data() + layer.parameters[next++].offset,
                       targets);
      }
      CHECK(next == layer.parameters.size());
    }
  }
}

TEST_CASE("a layer's gradients do not depend on threads, and add up") {
  std::vector<float> first;
  for (const int threads : {1, 3}) {
    Streamed model(TinyLlama(), threads);
    const LayerLayout layer(model.layout, 1);
    const std::vector<float> targets(model.x.size(), 0.5f);
    std::vector<float> gradients(layer.size), twice(layer.size);
    const auto add = [&](std::vector<float>* to) {
      REQUIRE(model.network->TrainLayer(model.batch, 1, model.Layer(1), model.x.data(),
                                        targets.data(), kScale, In(to->data(), layer.offsets)));
    };
    add(&gradients);
    add(&twice);
    add(&twice);
    for (size_t i = 0; i < twice.size(); ++i) {
      REQUIRE(twice[i] == doctest::Approx(2 * gradients[i]).epsilon(1e-4));
    }
    if (first.empty()) first = gradients;
    CHECK(gradients == first);
  }
}

TEST_CASE("a layer's own run has its matrices first") {
  Streamed model(test_models::Gemma3());
  const LayerLayout layer(model.layout, 1);
  size_t elements = 0;
  bool vectors = false;
  for (const Parameter& parameter : layer.parameters) {
    CHECK(parameter.name.starts_with("blk.1."));
    CHECK(parameter.offset == elements);
    elements += parameter.shape.elements();
    vectors = vectors || parameter.shape.rank() == 1;
    CHECK((parameter.shape.rank() == 1) == vectors);
    if (!vectors) CHECK(layer.matrix_size >= elements);
  }
  CHECK(layer.size == elements);
}

}  // namespace
}  // namespace edgewise::train
