#include "compress/quantize/sensitivity.h"

#include <doctest/doctest.h>

#include <cmath>

#include "compress/quantize/equivalence.h"

namespace edgewise {
namespace {

struct Measured {
  std::vector<TensorPlan> plan;
  std::vector<TensorCosts> costs;
};

Measured Measure(const Checkpoint& model, const TemporaryFolder& folder, RowEncoder encoder,
                 int threads) {
  ThreadPool pool(threads);
  NoProgress silent;
  const std::string path = folder / "calibration.gguf";
  CalibrateOptions calibrate;
  calibrate.overwrite = true;
  REQUIRE(Calibrate(model, {TinyTokens(60, 37, 1), TinyTokens(60, 37, 2)}, {}, path, calibrate,
                    &pool, &silent));
  const auto calibration = CalibrationFile::Open(path);
  REQUIRE(calibration.has_value());
  PlanOptions options;
  options.preset = *FindPreset("q4_0");
  options.pure = true;
  auto plan = PlanQuantization(model.tensors(), model.spec(), false, options);
  REQUIRE(plan.has_value());
  SensitivityOptions how;
  how.encoder = encoder;
  how.tokens = 40;
  auto costs = MeasureSensitivity(model, *plan, *calibration, how, &pool, &silent);
  REQUIRE_MESSAGE(costs, (costs ? "" : costs.error().message));
  return {*std::move(plan), *std::move(costs)};
}

double CostOf(const TensorCosts& costs, DType type) {
  for (const FormatCost& cost : costs.formats) {
    if (cost.type == type) return cost.kl;
  }
  FAIL("a format is missing");
  return 0;
}

TEST_CASE("costs follow the bits, and what a tensor does to the model") {
  TemporaryFolder folder;
  const TinySizes sizes = {
      .dim = 64, .layers = 2, .heads = 4, .kv_heads = 2, .head_dim = 16, .ffn = 96, .vocab = 37};
  TinyModel tiny = TinyWeights(TinyConfig("LlamaForCausalLM", "llama", sizes), sizes, {}, 5);
  // The second layer's feed-forward hardly matters.
  for (float& v : tiny.tensors["model.layers.1.mlp.up_proj.weight"].values) v *= 0.01f;
  const Checkpoint model = Written(tiny, folder);
  for (const RowEncoder encoder :
       {RowEncoder::kPlain, RowEncoder::kWeighted, RowEncoder::kFeedback}) {
    const Measured found = Measure(model, folder, encoder, 2);
    CHECK(found.costs.size() == 2 + 7 * sizes.layers);
    double heavy = 0, light = 0;
    for (const TensorCosts& costs : found.costs) {
      const std::string& name = found.plan[costs.entry].name;
      CAPTURE(name);
      CHECK(CostOf(costs, DType::kQ4_0) > CostOf(costs, DType::kQ5_0));
      CHECK(CostOf(costs, DType::kQ5_0) > CostOf(costs, DType::kQ8_0));
      CHECK(CostOf(costs, DType::kQ8_0) > CostOf(costs, DType::kF16));
      if (name == "blk.0.ffn_down.weight") heavy = CostOf(costs, DType::kQ4_0);
      if (name == "blk.1.ffn_down.weight") light = CostOf(costs, DType::kQ4_0);
    }
    CHECK(heavy > 100 * light);
    const Measured again = Measure(model, folder, encoder, 1);
    CHECK(CostOf(again.costs[3], DType::kQ4_1) == CostOf(found.costs[3], DType::kQ4_1));
  }
}

}  // namespace
}  // namespace edgewise
