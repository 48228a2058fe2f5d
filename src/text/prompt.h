// Rendered chat prompts to token ids, so that nobody writes control tokens through a message.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace edgewise {

// Returns the variables that chat templates of every family render from: `messages` (an array of
// {"role", "content"}), add_generation_prompt, and the texts of the vocabulary's bos and eos.
Json ChatContext(const Vocab& vocab, const Json& messages, bool add_generation_prompt);

// Encodes rendered prompts with one tokenizer, which must outlive it. Immutable, so thread-safe.
class PromptEncoder {
 public:
  explicit PromptEncoder(const Tokenizer& tokenizer);
  PromptEncoder(PromptEncoder&&) noexcept;
  PromptEncoder& operator=(PromptEncoder&&) noexcept;
  ~PromptEncoder();

  // Appends the ids of the joined parts. They are those of the joined text with its control tokens
  // parsed, except that control tokens spelled, wholly or in part, by untrusted text stay plain
  // text. With empty `ids` a text begins: BOS comes first where the vocabulary asks for it and the
  // template did not write it itself. Else the parts go on after it, and what is there stays as it
  // is. Errors: those of Tokenizer::Encode, with `ids` unchanged.
  Status Append(std::span<const PromptPart> parts, std::vector<int32_t>* ids) const;

  // Returns where in the joined text the first end-of-generation token ends that trusted text alone
  // spells, or std::string::npos.
  size_t FindEndOfGeneration(std::span<const PromptPart> parts) const;

 private:
  class ControlTokens;
  const Tokenizer* tokenizer_;
  std::unique_ptr<const ControlTokens> controls_;
};

// Returns the ids of the joined parts as PromptEncoder::Append gives them. Errors: the same.
Result<std::vector<int32_t>> EncodePrompt(const Tokenizer& tokenizer,
                                          std::span<const PromptPart> parts);

}  // namespace edgewise
