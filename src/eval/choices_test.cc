#include "eval/choices.h"

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "engine/test_engine.h"
#include "text/prompt.h"

namespace edgewise {
namespace {

std::vector<Question> Questions(const std::string& text) {
  auto questions = ParseQuestions(text);
  REQUIRE_MESSAGE(questions.has_value(), (questions ? "" : questions.error().message));
  return *std::move(questions);
}

std::string ErrorOf(const std::string& text) {
  const auto questions = ParseQuestions(text);
  REQUIRE(!questions);
  CHECK(questions.error().code == Code::kBadData);
  return questions.error().message;
}

// Of the tokens from `first` on, by one pass over everything and a softmax in double precision.
double PlainLogProbability(Engine* engine, const std::vector<int32_t>& tokens, size_t first) {
  const size_t vocab = engine->model().spec().vocab_size;
  auto cache = KvCache::Create(engine->model().spec(), 256, kernels::KvFormat::kF16);
  REQUIRE(cache);
  ForwardPass forward(engine->model(), &engine->pool());
  std::vector<float> logits(tokens.size() * vocab);
  REQUIRE(forward.Run(tokens, &*cache, 0, logits));
  double total = 0;
  for (size_t t = first; t < tokens.size(); ++t) {
    const float* row = logits.data() + (t - 1) * vocab;
    double sum = 0;
    for (size_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(row[i]));
    total += static_cast<double>(row[tokens[t]]) - std::log(sum);
  }
  return total;
}

const char kStories[] =
    R"({"prompt": "Once upon a time, there was a little girl named", "choices": [" Lily. She loved to play outside in the park. One day, she saw a big red ball in the grass.", " Sue"], "answer": 0}

{"prompt": "Tom and his dog went to the", "choices": [" purple because", " park", " the the the the"], "answer": 1, "source": "ours"}
{"prompt": "\"Thank you,\" said the", "choices": [" bird.", " was."], "answer": 1}
)";

TEST_CASE("Choices are scored as one pass over prompt and choice scores them") {
  Engine* engine = BundledEngine();
  const std::vector<Question> questions = Questions(kStories);
  REQUIRE(questions.size() == 3);
  CHECK(questions[1].line == 3);
  const PromptEncoder encoder(engine->tokenizer());
  double right = 0, right_per_byte = 0, loss = 0;
  uint64_t count = 0;
  for (const Question& question : questions) {
    std::vector<double> scores;
    for (const std::string& choice : question.choices) {
      std::vector<int32_t> tokens;
      REQUIRE(encoder.Append(std::vector<PromptPart>{{question.prompt, false}}, &tokens));
      const size_t first = tokens.size();
      REQUIRE(encoder.Append(std::vector<PromptPart>{{choice, false}}, &tokens));
      scores.push_back(PlainLogProbability(engine, tokens, first));
      count += tokens.size() - first;
    }
    double sum = 0, best = -1e30, best_per_byte = -1e30;
    size_t chosen = 0, chosen_per_byte = 0;
    for (size_t i = 0; i < scores.size(); ++i) {
      sum += std::exp(scores[i]);
      const double per_byte = scores[i] / static_cast<double>(question.choices[i].size());
      if (scores[i] > best) best = scores[i], chosen = i;
      if (per_byte > best_per_byte) best_per_byte = per_byte, chosen_per_byte = i;
    }
    right += chosen == question.answer ? 1 : 0;
    right_per_byte += chosen_per_byte == question.answer ? 1 : 0;
    loss += std::log(sum) - scores[question.answer];
  }
  const auto result = MeasureChoices(engine, questions, {});
  REQUIRE_MESSAGE(result.has_value(), (result ? "" : result.error().message));
  CHECK(result->questions == 3);
  CHECK(result->tokens == count);
  CHECK(result->accuracy == doctest::Approx(right / 3));
  CHECK(result->accuracy_per_byte == doctest::Approx(right_per_byte / 3));
  CHECK(result->accuracy_per_byte > result->accuracy);  // the first answer is the longer choice
  CHECK(result->loss == doctest::Approx(loss / 3).epsilon(1e-5));
  CHECK(result->accuracy_low < result->accuracy);
  CHECK(result->accuracy_high > result->accuracy);
}

TEST_CASE("Choices do not depend on the number of threads") {
  const std::unique_ptr<Engine> four = LoadTestEngine(BundledModel(), 4);
  const std::vector<Question> questions = Questions(kStories);
  const auto one = MeasureChoices(BundledEngine(), questions, {});
  const auto other = MeasureChoices(four.get(), questions, {});
  REQUIRE(one);
  REQUIRE(other);
  CHECK(one->loss == other->loss);
}

TEST_CASE("Intervals are Wilson's") {
  std::string text;
  for (int i = 0; i < 10; ++i) {
    text += R"({"prompt": "Once upon a", "choices": [" time", " zebra"], "answer": )";
    text += i < 8 ? "0}\n" : "1}\n";
  }
  const auto result = MeasureChoices(BundledEngine(), Questions(text), {});
  REQUIRE(result);
  CHECK(result->accuracy == doctest::Approx(0.8));
  CHECK(result->accuracy_low == doctest::Approx(0.4901625).epsilon(1e-5));
  CHECK(result->accuracy_high == doctest::Approx(0.9433178).epsilon(1e-5));
}

TEST_CASE("What is no question is told with its line") {
  const std::string good = R"({"prompt": "a", "choices": ["b", "c"], "answer": 1})"
                           "\n";
  CHECK(ErrorOf("\n \n").find("no questions") != std::string::npos);
  CHECK(ErrorOf(good + "{").starts_with("line 2: "));
  for (const char* bad :
       {"[]", R"({"choices": ["b", "c"], "answer": 1})",
        R"({"prompt": 1, "choices": ["b", "c"], "answer": 1})", R"({"prompt": "a", "answer": 0})",
        R"({"prompt": "a", "choices": ["b"], "answer": 0})",
        R"({"prompt": "a", "choices": ["b", 2], "answer": 0})",
        R"({"prompt": "a", "choices": ["b", ""], "answer": 0})",
        R"({"prompt": "a", "choices": ["b", "c\u0000"], "answer": 0})",
        R"({"prompt": "a", "choices": ["b", "c"]})",
        R"({"prompt": "a", "choices": ["b", "c"], "answer": 2})",
        R"({"prompt": "a", "choices": ["b", "c"], "answer": -1})",
        R"({"prompt": "a", "choices": ["b", "c"], "answer": "b"})"}) {
    CAPTURE(bad);
    CHECK(ErrorOf(good + "\n" + bad).starts_with("line 3: "));
  }
}

TEST_CASE("A question beyond the context is an error, not cut") {
  std::string prompt;
  for (int i = 0; i < 300; ++i) prompt += " dog";
  const auto result = MeasureChoices(
      BundledEngine(),
      Questions(R"({"prompt": ")" + prompt + R"(", "choices": ["b", "c"], "answer": 1})"), {});
  REQUIRE(!result);
  CHECK(result.error().code == Code::kBadData);
  CHECK(result.error().message.find("line 1") != std::string::npos);
  CHECK(result.error().message.find("context is 256") != std::string::npos);
}

}  // namespace
}  // namespace edgewise
