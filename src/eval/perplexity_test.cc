#include "eval/perplexity.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "engine/test_engine.h"

namespace edgewise {
namespace {

// Mean negative log-likelihood by definition: one forward pass per window, softmax in plain double.
double PlainNll(Engine* engine, const ScoredText& scored) {
  const size_t vocab_size = engine->model().spec().vocab_size;
  double total = 0;
  uint64_t count = 0;
  for (const ScoredWindow& window : scored.windows) {
    auto cache = KvCache::Create(engine->model().spec(), scored.context, kernels::KvFormat::kF32);
    REQUIRE(cache);
    ForwardPass forward(engine->model(), &engine->pool());
    std::vector<float> logits(window.tokens.size() * vocab_size);
    REQUIRE(forward.Run(window.tokens, &*cache, 0, logits));
    for (size_t t = window.first_target; t < window.tokens.size(); ++t) {
      const float* row = logits.data() + (t - 1) * vocab_size;
      double sum = 0;
      for (size_t i = 0; i < vocab_size; ++i) sum += std::exp(static_cast<double>(row[i]));
      total += std::log(sum) - static_cast<double>(row[window.tokens[t]]);
      ++count;
    }
  }
  return total / static_cast<double>(count);
}

TEST_CASE("Perplexity is exp of the mean loss of a plain softmax, in every convention") {
  Engine* engine = BundledEngine();
  const std::string text = BundledText(2500);
  for (const auto convention :
       {TextConvention::kWhole, TextConvention::kLlamaCpp, TextConvention::kDocuments}) {
    TextOptions options;
    options.convention = convention;
    options.context = 80;
    const auto result = MeasurePerplexity(engine, text, options);
    REQUIRE(result);
    const auto scored =
        CutText(engine->tokenizer(), engine->model().spec().context_length, text, options);
    REQUIRE(scored);
    const double expected = PlainNll(engine, *scored);
    CHECK(result->nll == doctest::Approx(expected).epsilon(2e-4));  // the F16 cache of the runtime
    CHECK(result->perplexity == doctest::Approx(std::exp(result->nll)).epsilon(1e-12));
    CHECK(result->tokens == scored->tokens);
    CHECK(result->windows == scored->windows.size());
    CHECK(result->nll_stderr > 0.01);
    CHECK(result->nll_stderr < 0.3);
    CHECK(result->perplexity_stderr == doctest::Approx(result->perplexity * result->nll_stderr));
  }
}

TEST_CASE("Perplexity does not depend on the number of threads") {
  const std::string text = BundledText(1200);
  TextOptions options;
  options.context = 64;
  const auto one = MeasurePerplexity(BundledEngine(), text, options);
  REQUIRE(one);
  for (const int threads : {2, 3}) {
    const auto engine = LoadTestEngine(BundledModel(), threads);
    const auto other = MeasurePerplexity(engine.get(), text, options);
    REQUIRE(other);
    CHECK(other->nll == one->nll);
  }
}

TEST_CASE("Progress is told and cancels") {
  class Watch final : public Progress {
   public:
    void Update(std::string_view, uint64_t done, uint64_t total) override {
      CHECK(done >= last);
      CHECK(done <= total);
      last = done;
    }
    bool Cancelled() const override { return last > 0; }
    uint64_t last = 0;
  };
  Watch watch;
  TextOptions options;
  options.context = 32;
  const auto result = MeasurePerplexity(BundledEngine(), BundledText(3000), options, &watch);
  CHECK(result.error().code == Code::kCancelled);
  CHECK(watch.last > 0);
}

TEST_CASE("The members of the JSON output have their names") {
  PerplexityResult result;
  result.perplexity = 4.5;
  result.convention = "documents";
  const Json json = ToJson(result);
  for (const char* key : {"perplexity", "nll", "tokens", "convention"})
    CHECK(json.Find(key) != nullptr);
  CHECK(*json.Find("convention")->AsString() == "documents");
}

}  // namespace
}  // namespace edgewise
