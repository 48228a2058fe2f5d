// Cuts a template into tokens, with the whitespace rules that Hugging Face sets (trim_blocks,
// lstrip_blocks).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace edgewise::jinja {

enum class TokenKind : uint8_t {
  kText,         // template text, to be copied to the output
  kBlockBegin,   // {%
  kBlockEnd,     // %}
  kOutputBegin,  // {{
  kOutputEnd,    // }}
  kName,
  kString,   // unescaped
  kInteger,  // decimal digits
  kFloat,
  kOperator,  // its spelling
  kEnd,
};

struct Token {
  TokenKind kind;
  std::string text;
  uint32_t line;
  uint32_t column;
};

// Returns the tokens of a template, the last of them kEnd. Comments are gone, {% raw %} has become
// text. Errors: kBadData with line and column.
Result<std::vector<Token>> Tokenize(std::string_view source);

// Returns the kBadData error for a place in the template.
Error SyntaxError(const Token& token, std::string_view message);

}  // namespace edgewise::jinja
