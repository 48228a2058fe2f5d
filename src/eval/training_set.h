// Training sets: examples of a prompt and a response, from JSON lines or plain text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace edgewise {

struct TrainingExample {
  std::string prompt;    // empty where the source has only a text
  std::string response;  // or the whole text
  uint64_t line = 0;     // where it begins in the source, from 1
};

// Reads JSON lines: one object a line, blank lines skipped. The members that count are the first of
// these that an object has: "messages" (an array of {"role", "content"}: the last message of the
// assistant is the response, all before it the prompt), "prompt" with "response" or "completion",
// "instruction" with "output" (and "input", which continues the prompt), "question" with "answer",
// "text". Errors: kBadData (the line, and what is wrong with it; no example at all).
Result<std::vector<TrainingExample>> ReadJsonLines(std::string_view text);

// Reads plain text: the pieces between `separator`s, trimmed, empty ones left out. Errors:
// kInvalidArgument (an empty separator), kBadData (no example at all).
Result<std::vector<TrainingExample>> ReadSeparatedTexts(std::string_view text,
                                                        std::string_view separator);

}  // namespace edgewise
