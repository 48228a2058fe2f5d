// Rendered chat prompts to token ids, so that nobody writes control tokens through a message.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace edgewise {

// Returns the ids of the joined parts. They are those of the joined text with its control tokens
// parsed, except that control tokens spelled, wholly or in part, by untrusted text stay plain text.
// BOS comes first where the vocabulary asks for it and the template did not write it itself.
// Errors: those of Tokenizer::Encode.
Result<std::vector<int32_t>> EncodePrompt(const Tokenizer& tokenizer,
                                          std::span<const PromptPart> parts);

}  // namespace edgewise
