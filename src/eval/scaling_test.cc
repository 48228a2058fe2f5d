#include "eval/scaling.h"

#include <doctest/doctest.h>

#include "engine/test_engine.h"

namespace edgewise {
namespace {

TEST_CASE("Growth is measured at each point that was asked for") {
  const auto engine = LoadTestEngine(BundledModel(), 2);
  ScalingOptions options;
  options.max_tokens = 600;  // beyond the 256 that the model was trained for
  options.max_sequences = 5;
  options.steps = 3;
  const auto result = MeasureScaling(engine.get(), options);
  REQUIRE_MESSAGE(result.has_value(), (result ? "" : result.error().message));
  REQUIRE(result->context.size() == 3);
  REQUIRE(result->batch.size() == 3);
  REQUIRE(result->threads.size() == 2);
  uint32_t expected = 128;
  for (const auto& point : result->context) {
    CHECK(point.tokens == expected);
    CHECK(point.prefill_tokens_per_s > 0);
    CHECK(point.decode_tokens_per_s > 0);
    expected *= 2;
  }
  CHECK(result->batch[2].sequences == 4);
  CHECK(result->batch[2].decode_tokens_per_s > 0);
  CHECK(result->threads[1].threads == 2);
  CHECK(result->threads[1].prefill_tokens_per_s > 0);
  const Json json = ToJson(*result);
  for (const char* key : {"context", "batch", "threads"}) CHECK(json.Find(key) != nullptr);
}

TEST_CASE("Growth over nothing is refused") {
  ScalingOptions options;
  options.max_tokens = 100;
  CHECK(MeasureScaling(BundledEngine(), options).error().code == Code::kInvalidArgument);
  options = {};
  options.max_sequences = 0;
  CHECK(MeasureScaling(BundledEngine(), options).error().code == Code::kInvalidArgument);
}

}  // namespace
}  // namespace edgewise
