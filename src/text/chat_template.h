// Chat templates: messages to prompt through the model's own Jinja template, in a capability-free,
// bounded interpreter.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/jinja/limits.h"

namespace edgewise {

// A piece of the rendered prompt. Text that came from the messages is never trusted: it must be
// tokenized with parse_special = false so that a user cannot write control tokens. Text of the
// template itself is trusted.
struct PromptPart {
  std::string text;
  bool trusted = true;
};

// A parsed template. Immutable, so thread-safe.
class ChatTemplate {
 public:
  // Errors: kBadData (syntax, with line and column), kUnsupported (a statement, filter or test
  // outside the subset, named).
  static Result<ChatTemplate> Parse(std::string source, const JinjaLimits& limits = {});
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // Renders with the variables of `context` (an object: messages, add_generation_prompt, bos_token,
  // eos_token, tools, ...). Strings below `messages`, `tools` and `documents` are untrusted, and
  // stay so through every operation; neighbouring parts differ in trust. strftime_now tells `now`,
  // the local time when absent. Errors: kInvalidArgument (raise_exception, with its message; the
  // context is no object), kBadData (a type error, with its line), kUnsupported (an operation
  // outside the subset), kOutOfMemory (a limit).
  Result<std::vector<PromptPart>> Render(const Json& context,
                                         std::optional<std::tm> now = {}) const;
  // Render, joined.
  Result<std::string> RenderText(const Json& context, std::optional<std::tm> now = {}) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgewise
