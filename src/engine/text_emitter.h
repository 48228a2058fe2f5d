// TextEmitter: generated ids to the text that a reader may see.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace edgewise {

// Emits whole characters, and holds back whatever may still become a stop string. Not thread-safe;
// the tokenizer, the stop strings and `on_text` must outlive it.
class TextEmitter {
 public:
  // `before`: the tokens that the generated ones continue; a character they left unfinished is
  // finished here. `on_text` may be null; false from it cancels.
  TextEmitter(const Tokenizer& tokenizer, std::span<const int32_t> before,
              const std::vector<std::string>* stop,
              const std::function<bool(std::string_view)>* on_text);

  // Errors: kInvalidArgument (an empty stop string, or one that is not UTF-8).
  static Status CheckStops(const std::vector<std::string>& stop);

  enum class Outcome { kContinue, kStopString, kCancelled };
  // Takes the next token.
  Outcome Push(int32_t id);
  // Ends the text: what was held back is emitted.
  Outcome Finish();

  // Everything emitted.
  const std::string& text() const { return text_; }

 private:
  Outcome Take(std::string decoded, bool last);

  StreamDecoder decoder_;
  const std::vector<std::string>* stop_;
  const std::function<bool(std::string_view)>* on_text_;
  bool strip_space_;  // the text starts here, and its first space stands for nothing
  std::string held_;
  std::string text_;
};

}  // namespace edgewise
