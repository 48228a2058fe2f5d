// Learning scales alone: what the network sees, and gradients that differences confirm.
#include "train/block_scales.h"

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "quant/scale_fields.h"
#include "train/test_models.h"
#include "train/trainer.h"

namespace edgewise::train {
namespace {

// A model of one layer whose rows are blocks of every format, with its matrices in `format`.
Checkpoint Quantized(DType format, const TemporaryFolder& folder) {
  const TinySizes sizes = {
      .dim = 256, .layers = 1, .heads = 4, .kv_heads = 1, .head_dim = 64, .ffn = 256, .vocab = 37};
  TinyWeights(TinyConfig("LlamaForCausalLM", "llama", sizes), sizes, {}, 3).Write(folder.path());
  const auto source = Checkpoint::Open(folder.path());
  REQUIRE(source);
  auto model = Checkpoint::Open(WriteMatricesIn(format, *source, folder));
  REQUIRE_MESSAGE(model, (model ? "" : model.error().message));
  return *model;
}

TEST_CASE("factors of 1 give the file's values, others the blocks that are written") {
  for (const DType format :
       {DType::kQ4_0, DType::kQ4_1, DType::kQ2_K, DType::kQ3_K, DType::kQ6_K}) {
    CAPTURE(std::string(Info(format).name));
    const TemporaryFolder folder;
    const Checkpoint model = Quantized(format, folder);
    const ParameterLayout layout(model.spec());
    ThreadPool pool(2);
    auto scales = BlockScales::Create(model, &pool);
    REQUIRE(scales);
    CHECK(scales->size() ==
          layout.matrix_size() / Info(format).block * ScaleFieldsOf(format).size());
    std::vector<float> factors(scales->size(), 1.0f);
    const auto same = scales->Apply(factors);
    REQUIRE(same);
    CHECK(std::vector<float>(*same, *same + layout.size()) == *LoadParameters(model, layout));
    Rng rng(1);
    for (float& factor : factors) factor = static_cast<float>(1 + 0.1 * rng.Gaussian());
    const auto changed = scales->Apply(factors);
    REQUIRE(changed);
    for (const BlockScales::ScaledTensor& tensor : scales->tensors()) {
      const std::vector<std::byte> blocks = BlockScales::Scaled(tensor, factors);
      std::vector<float> values(tensor.parameter.shape.elements());
      Info(format).decode(blocks.data(), values.data(), values.size());
      const float* seen = *changed + tensor.parameter.offset;
      CHECK(std::vector<float>(seen, seen + values.size()) == values);
    }
  }
}

TEST_CASE("a factor's gradient is what doubling its half does to the weights") {
  for (const DType format : {DType::kQ5_1, DType::kQ4_K, DType::kIQ4_XS}) {
    CAPTURE(std::string(Info(format).name));
    const TemporaryFolder folder;
    const Checkpoint model = Quantized(format, folder);
    const ParameterLayout layout(model.spec());
    ThreadPool pool(3);
    auto scales = BlockScales::Create(model, &pool);
    REQUIRE(scales);
    const std::vector<float> before = *LoadParameters(model, layout);
    std::vector<float> g(layout.size()), gradients(scales->size());
    Rng rng(2);
    for (float& value : g) value = static_cast<float>(rng.Gaussian());
    scales->Reduce(g.data(), gradients.data());
    std::vector<float> factors(scales->size(), 1.0f);
    for (size_t i = 0; i < factors.size(); i += 1 + factors.size() / 97) {
      factors[i] = 2;
      const float* after = *scales->Apply(factors);
      factors[i] = 1;
      double change = 0;
      for (size_t j = 0; j < g.size(); ++j) {
        change += static_cast<double>(g[j]) *
                  (static_cast<double>(after[j]) - static_cast<double>(before[j]));
      }
      REQUIRE(static_cast<double>(gradients[i]) == doctest::Approx(change).epsilon(1e-3));
    }
  }
}

struct Quiet final : TrainingObserver, Progress {
  std::vector<double> losses;
  Status OnStep(const StepReport& report, const TrainerState&) override {
    losses.push_back(report.loss);
    return Ok{};
  }
  void Update(std::string_view, uint64_t, uint64_t) override {}
};

TEST_CASE("the loss falls, whatever the threads, and only factors are learned") {
  const TemporaryFolder folder;
  const Checkpoint model = Quantized(DType::kQ4_0, folder);
  Corpus corpus;
  for (size_t d = 0; d < 8; ++d) corpus.Append(TinyTokens(12, 37, d + 1));
  std::vector<float> first;
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    auto scales = BlockScales::Create(model, &pool);
    REQUIRE(scales);
    TrainerOptions options;
    options.schedule = {.peak = 1e-2, .steps = 20};
    options.batch = {.tokens = 88, .sequence = 12, .seed = 1};
    options.precision = Precision::kF32;
    options.scales = &*scales;
    TrainerState state;
    state.weights.assign(scales->size(), 1.0f);
    CrossEntropyLoss loss(&pool);
    Quiet quiet;
    const Status trained =
        RunTraining(model.spec(), options, corpus, &corpus, &loss, &pool, &quiet, &quiet, &state);
    REQUIRE_MESSAGE(trained, (trained ? "" : trained.error().message));
    CHECK(quiet.losses.back() < quiet.losses.front() - 0.3);
    if (first.empty()) first = state.weights;
    CHECK(state.weights == first);
  }
}

TEST_CASE("a model without scales, and factors that a half cannot follow") {
  const TemporaryFolder floats, quantized;
  ThreadPool pool(1);
  const auto none = BlockScales::Create(Quantized(DType::kF16, floats), &pool);
  REQUIRE_FALSE(none);
  CHECK(none.error().message.find("quantize the model first") != std::string::npos);
  auto scales = BlockScales::Create(Quantized(DType::kQ8_0, quantized), &pool);
  REQUIRE(scales);
  const std::vector<float> large(scales->size(), 1e9f);
  const auto applied = scales->Apply(large);
  REQUIRE_FALSE(applied);
  CHECK(applied.error().code == Code::kBadData);
  CHECK(applied.error().message.find("too large for a half") != std::string::npos);
}

}  // namespace
}  // namespace edgewise::train
