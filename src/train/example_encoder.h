// Examples to tokens: texts, instructions and conversations, with what of them is learned.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/chat_template.h"
#include "text/prompt.h"
#include "text/tokenizer.h"
#include "train/corpus.h"

namespace edgewise::train {

struct Message {
  std::string_view role;  // "system", "user" or "assistant"
  std::string_view text;
};

// A task and its answer. Views of what the caller keeps.
struct Instruction {
  std::string_view instruction, input, response;  // `input` may be empty
};

// Encodes examples with a tokenizer, which must outlive it, and a model's chat template. A document
// begins with BOS where the vocabulary asks for it. Text of examples never becomes control tokens.
// Immutable, so thread-safe. Errors of all: those of Tokenizer::Encode and ChatTemplate::Render,
// and kBadData (nothing to learn), with the corpus unchanged.
class ExampleEncoder {
 public:
  // An empty `chat_template` means that the model has none. One that cannot be parsed is an error
  // of what needs it.
  ExampleEncoder(const Tokenizer& tokenizer, std::string_view chat_template);

  // Appends a text and EOS, where the vocabulary has one; all of it is learned.
  Status AddText(std::string_view text, Corpus* corpus) const;

  // Appends a prompt as it stands, its completion, and EOS, where the vocabulary has one; all but
  // the prompt is learned. The two are tokenized apart.
  Status AddCompletion(std::string_view prompt, std::string_view completion, Corpus* corpus) const;

  // Appends an instruction and its response, of which the response and what ends it are learned: as
  // a conversation where the model has a chat template, else in the words of Alpaca (Taori et al.
  // 2023) and with EOS at the end.
  Status AddInstruction(const Instruction& example, Corpus* corpus) const;

  // Appends a conversation up to its last answer. The messages of the assistant are learned, each
  // from where a prompt for it ends up to the token that ends its generation, so that a prompt is
  // tokenized as it will be in use. A template that writes no such token gets EOS after the last
  // answer. Errors: also kUnsupported (the model has no chat template, or its template renders the
  // prompt for an answer otherwise than the same messages with the answer after them).
  Status AddConversation(const std::vector<Message>& messages, Corpus* corpus) const;

 private:
  struct Answer {
    size_t message;  // its number
    size_t begin;    // the end of its prompt, in bytes of the whole rendered conversation
  };
  Result<std::vector<Answer>> FindAnswers(const std::vector<Message>& messages,
                                          std::string_view whole) const;
  // Renders the first `count` messages.
  Result<std::vector<PromptPart>> Render(const std::vector<Message>& messages, size_t count,
                                         bool add_generation_prompt) const;

  const Vocab* vocab_;
  PromptEncoder prompt_;
  std::optional<Result<ChatTemplate>> template_;
};

}  // namespace edgewise::train
