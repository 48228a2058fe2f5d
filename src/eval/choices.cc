#include "eval/choices.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "base/process.h"
#include "base/strings.h"
#include "eval/json_lines.h"
#include "eval/logit_stream.h"
#include "eval/moments.h"
#include "model/model.h"
#include "text/prompt.h"

namespace edgewise {
namespace {

Result<std::string> Text(const Json* value, const char* what) {
  const std::string* text = value == nullptr ? nullptr : value->AsString();
  if (text == nullptr) return MakeError(Code::kBadData, "%s must be a string", what);
  if (text->find('\0') == std::string::npos) return *text;
  return MakeError(Code::kBadData, "%s holds a NUL character", what);
}

Result<Question> ParseQuestion(const Json& row) {
  if (!row.is_object()) {
    return MakeError(Code::kBadData, "a question must be an object, not %s", row.TypeName());
  }
  Question question;
  EW_TRY(question.prompt, Text(row.Find("prompt"), "\"prompt\""));
  const Json* choices = row.Find("choices");
  if (choices == nullptr || choices->AsArray() == nullptr || choices->AsArray()->size() < 2) {
    return Error{Code::kBadData, "\"choices\" must be an array of at least two strings"};
  }
  for (const Json& choice : *choices->AsArray()) {
    EW_TRY(std::string text, Text(&choice, "each of \"choices\""));
    if (text.empty()) return Error{Code::kBadData, "one of \"choices\" is empty"};
    question.choices.push_back(std::move(text));
  }
  const Json* answer = row.Find("answer");
  const std::optional<int64_t> index = answer == nullptr ? std::nullopt : answer->AsInt();
  if (!index || *index < 0 || static_cast<size_t>(*index) >= question.choices.size()) {
    return MakeError(Code::kBadData, "\"answer\" must be the index of a choice, 0 to %zu",
                     question.choices.size() - 1);
  }
  question.answer = static_cast<size_t>(*index);
  return question;
}

struct Interval {
  double low, high;
};

// Of a share `p` of `n` (Wilson 1927), at 95 %.
Interval Wilson(double p, double n) {
  constexpr double z = 1.959964;
  const double center = p + z * z / (2 * n), scale = 1 + z * z / n;
  const double half = z * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {std::max(0.0, (center - half) / scale), std::min(1.0, (center + half) / scale)};
}

// Scores one choice after another behind a prompt that passes through the model once.
class Scorer {
 public:
  Scorer(Engine* engine, KvCache cache)
      : engine_(engine),
        encoder_(engine->tokenizer()),
        cache_(std::move(cache)),
        forward_(engine->model(), &engine->pool()) {}

  // The log-probability of each choice, in nats.
  Result<std::vector<double>> Score(const Question& question) {
    std::vector<int32_t> prompt;
    EW_TRY(encoder_.Append(std::vector<PromptPart>{{question.prompt, false}}, &prompt));
    if (prompt.empty()) {
      return Error{Code::kBadData,
                   "the prompt is empty and the vocabulary has no token that begins a text, so "
                   "nothing predicts the choices' first token"};
    }
    cache_.Clear();
    std::vector<double> scores;
    for (const std::string& choice : question.choices) {
      std::vector<int32_t> tokens = prompt;
      EW_TRY(encoder_.Append(std::vector<PromptPart>{{choice, false}}, &tokens));
      EW_TRY(const double score, Score(tokens, prompt.size()));
      scores.push_back(score);
    }
    return scores;
  }
  uint64_t scored() const { return scored_; }

 private:
  // The log-probability of the tokens from `first` on.
  Result<double> Score(std::span<const int32_t> tokens, size_t first) {
    if (tokens.size() > cache_.capacity()) {
      return MakeError(Code::kBadData,
                       "prompt and choice have %zu tokens; the model's context is %u",
                       tokens.size(), cache_.capacity());
    }
    // The prompt's last token passes again with each choice: it predicts the first token of it.
    const uint32_t kept =
        cache_.Truncate(std::min(cache_.size(), static_cast<uint32_t>(first - 1)));
    const std::span<const int32_t> rest = tokens.subspan(kept, tokens.size() - 1 - kept);
    const size_t vocab = engine_->model().spec().vocab_size, rows = tokens.size() - first;
    logits_.resize(rows * vocab);
    EW_TRY(forward_.Run(rest, &cache_, rest.size() - rows, logits_));
    double sum = 0;
    for (size_t i = 0; i < rows; ++i) {
      sum -= NegativeLogLikelihood(logits_.data() + i * vocab, vocab, tokens[first + i]);
    }
    if (!std::isfinite(sum)) return NotFiniteLogits("model");
    scored_ += rows;
    return sum;
  }

  Engine* engine_;
  PromptEncoder encoder_;
  KvCache cache_;
  ForwardPass forward_;
  std::vector<float> logits_;
  uint64_t scored_ = 0;
};

size_t Highest(const std::vector<double>& scores) {
  return static_cast<size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

}  // namespace

Result<std::vector<Question>> ParseQuestions(std::string_view text) {
  std::vector<Question> questions;
  EW_TRY(EachJsonLine(text, [&](const Json& row, uint64_t line) -> Status {
    EW_TRY(Question question, ParseQuestion(row));
    question.line = line;
    questions.push_back(std::move(question));
    return Ok{};
  }));
  if (questions.empty()) {
    return Error{Code::kBadData,
                 "holds no questions: lines of {\"prompt\", \"choices\", \"answer\"} are needed"};
  }
  return questions;
}

Result<ChoicesResult> MeasureChoices(Engine* engine, const std::vector<Question>& questions,
                                     const ChoicesOptions& options, Progress* progress) {
  NoProgress silent;
  if (!progress) progress = &silent;
  const double start = NowSeconds();
  const ModelSpec& spec = engine->model().spec();
  EW_TRY(KvCache cache, KvCache::Create(spec, spec.context_length, options.kv_format));
  Scorer scorer(engine, std::move(cache));
  Moments right, right_per_byte, loss;
  for (const Question& question : questions) {
    progress->Update("multiple choice", right.count(), questions.size());
    if (progress->Cancelled()) return Error{Code::kCancelled, "multiple choice was cancelled"};
    EW_TRY(std::vector<double> scores,
           scorer.Score(question).In(
               Format("line %llu", static_cast<unsigned long long>(question.line))));
    right.Add(Highest(scores) == question.answer ? 1 : 0);
    const double most = scores[Highest(scores)];
    const double sum = std::accumulate(scores.begin(), scores.end(), 0.0,
                                       [&](double s, double x) { return s + std::exp(x - most); });
    loss.Add(most + std::log(sum) - scores[question.answer]);
    for (size_t i = 0; i < scores.size(); ++i) {
      scores[i] /= static_cast<double>(question.choices[i].size());
    }
    right_per_byte.Add(Highest(scores) == question.answer ? 1 : 0);
  }
  progress->Update("multiple choice", right.count(), questions.size());

  ChoicesResult result;
  result.questions = questions.size();
  const auto n = static_cast<double>(result.questions);
  result.accuracy = right.mean();
  result.accuracy_per_byte = right_per_byte.mean();
  const Interval whole = Wilson(result.accuracy, n), bytes = Wilson(result.accuracy_per_byte, n);
  result.accuracy_low = whole.low, result.accuracy_high = whole.high;
  result.accuracy_per_byte_low = bytes.low, result.accuracy_per_byte_high = bytes.high;
  result.loss = loss.mean();
  result.tokens = scorer.scored();
  result.seconds = NowSeconds() - start;
  return result;
}

Json ToJson(const ChoicesResult& r) {
  Json object;
  object.Set("questions", r.questions).Set("accuracy", r.accuracy);
  object.Set("accuracy_low", r.accuracy_low).Set("accuracy_high", r.accuracy_high);
  object.Set("accuracy_per_byte", r.accuracy_per_byte);
  object.Set("accuracy_per_byte_low", r.accuracy_per_byte_low);
  object.Set("accuracy_per_byte_high", r.accuracy_per_byte_high);
  object.Set("loss", r.loss).Set("tokens", r.tokens).Set("seconds", r.seconds);
  return object;
}

}  // namespace edgewise
