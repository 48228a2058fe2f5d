// The network against the runtime's logits and, for its gradients, against differences of an
// independent forward pass in double precision.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "model/reference_forward.h"
#include "train/network.h"
#include "train/test_gradients.h"
#include "train/test_models.h"

namespace edgewise::train {
namespace {

constexpr float kScale = 0.25f;

// The sum of cross-entropies, in double precision.
double ReferenceLoss(const TinyModel& tiny, const Batch& batch) {
  const size_t vocab = TinySizes().vocab;
  double sum = 0;
  size_t row = 0;
  for (const uint32_t length : batch.lengths) {
    const std::vector<int32_t> tokens(batch.tokens.begin() + static_cast<long>(row),
                                      batch.tokens.begin() + static_cast<long>(row + length));
    const std::vector<double> logits = ReferenceForward(tiny).Run(tokens);
    for (size_t i = 0; i < length; ++i, ++row) {
      if (batch.targets[row] == kNoTarget) continue;
      const double* z = logits.data() + i * vocab;
      double total = 0;
      for (size_t v = 0; v < vocab; ++v) total += std::exp(z[v]);
      sum += std::log(total) - z[batch.targets[row]];
    }
  }
  return sum;
}

struct Outcome {
  double loss;
  std::vector<float> gradients;
};
Outcome RunTraining(const ModelSpec& spec, const std::vector<float>& weights, const Batch& batch,
                    const NetworkOptions& options, int threads, uint64_t seed = 1) {
  ThreadPool pool(threads);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  auto network = Network::Create(spec, ops.get(), options);
  REQUIRE(network.has_value());
  CrossEntropyLoss loss(&pool);
  Outcome outcome{0, std::vector<float>(weights.size())};
  auto sum = network->Train(batch, weights.data(), &loss, kScale, seed, outcome.gradients.data());
  REQUIRE_MESSAGE(sum.has_value(), (sum ? "" : sum.error().message));
  outcome.loss = *sum;
  return outcome;
}

void CheckGradients(const TinyModel& tiny) {
  ModelSpec spec;
  const std::vector<float> weights = Parameters(tiny, &spec);
  const Batch batch = PackedBatch(spec.vocab_size);
  const Outcome outcome = RunTraining(spec, weights, batch, {}, 2);
  CHECK(outcome.loss == doctest::Approx(ReferenceLoss(tiny, batch)).epsilon(1e-5));
  for (const auto& [name, tensor] : tiny.tensors) {
    CheckTensor(tiny, name, outcome.gradients, kScale,
                [&](const TinyModel& moved) { return ReferenceLoss(moved, batch); });
  }

  const Outcome again = RunTraining(spec, weights, batch, {.recompute = true}, 3);
  CHECK(again.loss == outcome.loss);
  CHECK(again.gradients == outcome.gradients);
}

// The runtime's logits for each sequence of the batch.
void CheckLogits(const TinyModel& tiny) {
  TemporaryFolder folder;
  tiny.Write(folder.path());
  const auto model = LoadTestModel(folder.path());
  ModelSpec spec;
  const std::vector<float> weights = Parameters(tiny, &spec);
  const Batch batch = PackedBatch(spec.vocab_size);
  ThreadPool pool(2);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  auto network = Network::Create(spec, ops.get(), {});
  REQUIRE(network.has_value());
  REQUIRE(network->Forward(batch, weights.data()).has_value());
  std::vector<uint32_t> rows(batch.size());
  std::iota(rows.begin(), rows.end(), 0u);
  std::vector<float> logits(rows.size() * spec.vocab_size);
  network->Logits(weights.data(), rows, logits.data());
  size_t row = 0;
  for (const uint32_t length : batch.lengths) {
    ForwardPass pass(*model, &pool);
    auto cache = KvCache::Create(spec, 16, kernels::KvFormat::kF32);
    REQUIRE(cache.has_value());
    std::vector<float> expected(length * spec.vocab_size);
    REQUIRE(pass.Run({batch.tokens.data() + row, length}, &*cache, 0, expected).has_value());
    for (size_t i = 0; i < expected.size(); ++i) {
      REQUIRE(std::abs(expected[i] - logits[row * spec.vocab_size + i]) < 1e-4f);
    }
    row += length;
  }
}

TEST_CASE("every architecture: the runtime's logits, and gradients that differences confirm") {
  for (const NamedModel& trained : TrainedModels()) {
    CAPTURE(trained.name);
    CheckLogits(trained.model);
    CheckGradients(trained.model);
  }
}

TEST_CASE("threads change no bit; dropout is the same forward, backward and recomputed") {
  ModelSpec spec;
  const std::vector<float> weights = Parameters(TinyLlama(), &spec);
  const Batch batch = PackedBatch(spec.vocab_size);
  const NetworkOptions dropout = {.dropout = 0.3f};
  const Outcome one = RunTraining(spec, weights, batch, dropout, 1, 5);
  for (const bool recompute : {false, true}) {
    const NetworkOptions options = {.recompute = recompute, .dropout = 0.3f};
    const Outcome same = RunTraining(spec, weights, batch, options, 3, 5);
    CHECK(same.loss == one.loss);
    CHECK(same.gradients == one.gradients);
  }
  CHECK(RunTraining(spec, weights, batch, dropout, 1, 6).loss != one.loss);
  CHECK(RunTraining(spec, weights, batch, {}, 1).loss != one.loss);

  // A step along the gradient with the same values dropped: the loss changes as it says.
  std::vector<float> up = weights, down = weights;
  const double slope = Dot(one.gradients, one.gradients);
  const auto step = static_cast<float>(1e-3 / std::sqrt(slope));
  for (size_t i = 0; i < weights.size(); ++i) {
    up[i] += step * one.gradients[i];
    down[i] -= step * one.gradients[i];
  }
  const double change = RunTraining(spec, up, batch, dropout, 1, 5).loss -
                        RunTraining(spec, down, batch, dropout, 1, 5).loss;
  CHECK(kScale * change == doctest::Approx(2 * step * slope).epsilon(1e-2));
}

TEST_CASE("evaluation gives the loss of training without dropout") {
  ModelSpec spec;
  const std::vector<float> weights = Parameters(TinyLlama(), &spec);
  const Batch batch = PackedBatch(spec.vocab_size);
  ThreadPool pool(2);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  auto network = Network::Create(spec, ops.get(), {.dropout = 0.5f});
  REQUIRE(network.has_value());
  CrossEntropyLoss loss(&pool);
  const auto sum = network->Evaluate(batch, weights.data(), &loss);
  REQUIRE(sum.has_value());
  CHECK(*sum == RunTraining(spec, weights, batch, {}, 1).loss);
}

TEST_CASE("refused batches") {
  ModelSpec spec;
  const std::vector<float> weights = Parameters(TinyLlama(), &spec);
  ThreadPool pool(1);
  const auto ops = MakeCpuOps(&pool, Precision::kF32);
  auto network = Network::Create(spec, ops.get(), {});
  REQUIRE(network.has_value());
  CrossEntropyLoss loss(&pool);
  const Batch good = PackedBatch(spec.vocab_size);
  Batch empty, uneven = good, outside = good, target = good;
  uneven.lengths.back() += 1;
  outside.tokens[2] = static_cast<int32_t>(spec.vocab_size);
  target.targets[2] = -2;
  for (const Batch* batch : {&empty, &uneven, &outside, &target}) {
    const auto sum = network->Evaluate(*batch, weights.data(), &loss);
    REQUIRE(!sum.has_value());
    CHECK(sum.error().code == Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace edgewise::train
