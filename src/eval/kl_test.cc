#include "eval/kl.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/test_engine.h"
#include "pipeline/convert.h"

namespace edgewise {
namespace {

std::unique_ptr<Engine> Quantized(const TemporaryFolder& folder, const std::string& preset) {
  QuantizeOptions options;
  options.preset = preset;
  NoProgress progress;
  const std::string path = folder / (preset + ".gguf");
  const auto summary = Quantize(BundledModel(), path, options, &progress);
  REQUIRE_MESSAGE(summary.has_value(), (summary ? "" : summary.error().message));
  return LoadTestEngine(path);
}

TextOptions Windows(uint32_t context) {
  TextOptions options;
  options.convention = TextConvention::kWhole;
  options.context = context;
  return options;
}

TEST_CASE("A model does not differ from itself") {
  const auto result = MeasureKl(BundledEngine(), BundledEngine(), BundledText(1500), Windows(64));
  REQUIRE(result);
  CHECK(result->kl.mean == 0);
  CHECK(result->kl_max == 0);
  CHECK(result->top1_agreement.mean == 1);
  CHECK(result->rms_delta_p.mean == 0);
  CHECK(result->ppl_ratio.mean == 1);
  CHECK(result->perplexity == result->base_perplexity);
  CHECK(result->convention == "A");
}

// Everything by definition, on softmaxes in plain double.
struct Plain {
  std::vector<double> kl;
  double base_nll = 0, nll = 0, squared_delta_p = 0, same_top = 0;
};

std::vector<double> LogSoftmax(const float* row, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(row[i]));
  std::vector<double> result(n);
  for (size_t i = 0; i < n; ++i) result[i] = static_cast<double>(row[i]) - std::log(sum);
  return result;
}

std::vector<float> Logits(Engine* engine, const std::vector<int32_t>& tokens) {
  auto cache = KvCache::Create(engine->model().spec(), static_cast<uint32_t>(tokens.size()),
                               kernels::KvFormat::kF16);
  REQUIRE(cache);
  ForwardPass forward(engine->model(), &engine->pool());
  std::vector<float> logits(tokens.size() * engine->model().spec().vocab_size);
  REQUIRE(forward.Run(tokens, &*cache, 0, logits));
  return logits;
}

Plain ByDefinition(Engine* base, Engine* model, const ScoredText& scored) {
  Plain plain;
  const size_t n = base->model().spec().vocab_size;
  for (const ScoredWindow& window : scored.windows) {
    const std::vector<float> a = Logits(base, window.tokens), b = Logits(model, window.tokens);
    for (size_t t = window.first_target; t < window.tokens.size(); ++t) {
      const std::vector<double> p = LogSoftmax(a.data() + (t - 1) * n, n);
      const std::vector<double> q = LogSoftmax(b.data() + (t - 1) * n, n);
      double kl = 0;
      for (size_t i = 0; i < n; ++i) kl += std::exp(p[i]) * (p[i] - q[i]);
      plain.kl.push_back(kl);
      const auto target = static_cast<size_t>(window.tokens[t]);
      plain.base_nll -= p[target];
      plain.nll -= q[target];
      plain.squared_delta_p += std::pow(std::exp(q[target]) - std::exp(p[target]), 2);
      const auto top = [](const std::vector<double>& x) {
        return std::max_element(x.begin(), x.end()) - x.begin();
      };
      plain.same_top += top(p) == top(q) ? 1 : 0;
    }
  }
  return plain;
}

TEST_CASE("Every figure agrees with its definition, and a coarser format is further away") {
  const TemporaryFolder folder;
  const auto q8 = Quantized(folder, "q8_0");
  const auto q4 = Quantized(folder, "q4_0");
  Engine* base = BundledEngine();
  const std::string text = BundledText(2500);
  const TextOptions options = Windows(120);
  const auto fine = MeasureKl(base, q8.get(), text, options);
  const auto coarse = MeasureKl(base, q4.get(), text, options);
  REQUIRE(fine);
  REQUIRE(coarse);
  CHECK(fine->kl.mean > 1e-6);
  CHECK(fine->kl.mean < 0.01);
  CHECK(coarse->kl.mean > 4 * fine->kl.mean);
  CHECK(coarse->top1_agreement.mean < fine->top1_agreement.mean);
  CHECK(coarse->rms_delta_p.mean > fine->rms_delta_p.mean);

  const auto scored = CutText(base->tokenizer(), 256, text, options);
  REQUIRE(scored);
  Plain plain = ByDefinition(base, q4.get(), *scored);
  const auto n = static_cast<double>(plain.kl.size());
  REQUIRE(coarse->tokens == plain.kl.size());
  double mean = 0, variance = 0;
  for (const double kl : plain.kl) mean += kl / n;
  for (const double kl : plain.kl) variance += (kl - mean) * (kl - mean) / (n - 1);
  const auto near = [](double expected) { return doctest::Approx(expected).epsilon(1e-3); };
  CHECK(coarse->kl.mean == near(mean));
  CHECK(coarse->kl.std_error == near(std::sqrt(variance / n)));
  std::sort(plain.kl.begin(), plain.kl.end());
  CHECK(coarse->kl_p90 == near(plain.kl[static_cast<size_t>(n * 0.9)]));
  CHECK(coarse->kl_p99 == near(plain.kl[static_cast<size_t>(n * 0.99)]));
  CHECK(coarse->kl_max == near(plain.kl.back()));
  CHECK(coarse->top1_agreement.mean == near(plain.same_top / n));
  CHECK(coarse->rms_delta_p.mean == near(100 * std::sqrt(plain.squared_delta_p / n)));
  CHECK(coarse->base_perplexity == near(std::exp(plain.base_nll / n)));
  CHECK(coarse->perplexity == near(std::exp(plain.nll / n)));
  CHECK(coarse->ppl_ratio.mean == near(std::exp((plain.nll - plain.base_nll) / n)));
}

TEST_CASE("Models of different vocabularies are not compared") {
  const auto tokenizer = [](const char* last) {
    Vocab vocab;
    vocab.tokens = {"<unk>", "a", "b", last};
    vocab.types = {TokenType::kUnknown, TokenType::kNormal, TokenType::kNormal, TokenType::kNormal};
    vocab.scores = {0, 0, 0, 0};
    vocab.unk = 0;
    auto made = Tokenizer::Create(std::move(vocab));
    REQUIRE(made);
    return *std::move(made);
  };
  CHECK(CheckSameVocabulary(*tokenizer("c"), *tokenizer("c")));
  const auto differs = CheckSameVocabulary(*tokenizer("c"), *tokenizer("d"));
  CHECK(differs.error().code == Code::kInvalidArgument);
  CHECK(differs.error().message.find("token 3 is \"c\"") != std::string::npos);
  EW_EXTERNAL_OR_SKIP(model, "models/stories260K/stories260K.bin");
  const auto other = LoadTestEngine(model);
  const auto refused = MeasureKl(BundledEngine(), other.get(), BundledText(1500), Windows(64));
  CHECK(refused.error().code == Code::kInvalidArgument);
}

TEST_CASE("The members of the JSON output have their names") {
  const Json json = ToJson(KlResult());
  for (const char* key : {"kl_mean", "kl_p99", "kl_max", "top1_agreement", "ppl_ratio", "tokens"}) {
    CHECK(json.Find(key) != nullptr);
  }
}

}  // namespace
}  // namespace edgewise
