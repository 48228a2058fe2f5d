// Fuzzes the reader of multiple-choice questions: whatever the bytes, the answer is questions that
// can be scored, or an error that tells a line.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "eval/choices.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto questions = edgewise::ParseQuestions(text);
  if (!questions) {
    if (questions.error().message.empty()) std::abort();
    return 0;
  }
  uint64_t line = 0;
  for (const edgewise::Question& question : *questions) {
    if (question.line <= line || question.answer >= question.choices.size()) std::abort();
    for (const auto& choice : question.choices) {
      if (choice.empty()) std::abort();
    }
    line = question.line;
  }
  return 0;
}
