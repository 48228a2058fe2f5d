// Accuracy in multiple choice: which of several continuations of a prompt a model finds most
// probable.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "base/result.h"
#include "engine/engine.h"
#include "kernels/kernels.h"

namespace edgewise {

struct Question {
  std::string prompt;
  std::vector<std::string> choices;  // two or more, none empty
  size_t answer = 0;                 // the index of the right one
  uint64_t line = 0;                 // in the file, from 1
};

// Reads lines of JSON: {"prompt": "...", "choices": ["...", "..."], "answer": 0}. Other members are
// left alone, blank lines too. Errors: kBadData (the first line that is no question, with its
// number; no questions).
Result<std::vector<Question>> ParseQuestions(std::string_view text);

struct ChoicesOptions {
  kernels::KvFormat kv_format = kernels::KvFormat::kF16;
};

struct ChoicesResult {
  uint64_t questions = 0;
  // The share of questions whose right choice has the highest log-probability, and the highest for
  // each of its bytes: choices of different lengths compare better so (acc and acc_norm of the LM
  // Evaluation Harness, Gao et al. 2021). Of equal choices the first counts.
  double accuracy = 0;
  double accuracy_per_byte = 0;
  // 95 % confidence intervals (Wilson 1927).
  double accuracy_low = 0, accuracy_high = 0;
  double accuracy_per_byte_low = 0, accuracy_per_byte_high = 0;
  // The mean of -log of the probability of the right choice among the choices, in nats.
  double loss = 0;
  uint64_t tokens = 0;  // scored
  double seconds = 0;
};

// Prompts and choices are tokenized apart, as training on {"prompt", "completion"} does, and a
// choice is scored without what would end it. The result does not depend on the number of threads.
// Errors: kBadData (a question longer than the model's context, with its line; logits that are not
// finite), those of ForwardPass::Run, kCancelled.
Result<ChoicesResult> MeasureChoices(Engine* engine, const std::vector<Question>& questions,
                                     const ChoicesOptions& options, Progress* progress = nullptr);

// The members of `eval --choices --json`.
Json ToJson(const ChoicesResult& result);

}  // namespace edgewise
