// Slow: a whole text of external data.
#include <doctest/doctest.h>

#include <cmath>

#include "base/file.h"
#include "engine/test_engine.h"
#include "eval/perplexity.h"

namespace edgewise {
namespace {

TEST_CASE("stories260K has the perplexity that an independent implementation measured") {
  EW_EXTERNAL_OR_SKIP(model, "models/stories260K/stories260K.bin");
  EW_EXTERNAL_OR_SKIP(data, "data/tinystories_train.txt");
  const auto text = ReadFile(data, 16 << 20);
  REQUIRE(text);
  const auto engine = LoadTestEngine(model);
  TextOptions options;
  options.convention = TextConvention::kDocuments;
  options.max_bytes = 400000;
  const auto result = MeasurePerplexity(engine.get(), *text, options);
  REQUIRE(result);
  CHECK(result->windows == 488);
  CHECK(result->tokens == 195396);
  CHECK(result->nll == doctest::Approx(1.5148).epsilon(0.0003));
  CHECK(std::fabs(result->perplexity - 4.5485) < 0.005);
}

}  // namespace
}  // namespace edgewise
