// Chat templates: messages to prompt through the model's own Jinja template, in a capability-free, bounded interpreter.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace edgewise {

// A piece of the rendered prompt. Text that came from the messages is never trusted: it must be tokenized with
// parse_special = false so that a user cannot write control tokens. Text of the template itself is trusted.
struct PromptPart {
  std::string text;
  bool trusted = true;
};

struct JinjaLimits {
  uint64_t max_steps = 1'000'000;
  uint64_t max_output_bytes = 16u << 20;
  int max_depth = 64;
  uint64_t max_template_bytes = 1u << 20;
};

// A parsed template. Immutable, so thread-safe.
class ChatTemplate {
 public:
  // Errors: kBadData (syntax, with line and column), kUnsupported (a statement, filter or test outside the subset, named).
  static Result<ChatTemplate> Parse(std::string source, const JinjaLimits& limits = {});
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // Renders with the variables of `context` (an object: messages, add_generation_prompt, bos_token, eos_token, tools, ...).
  // Strings below `messages`, `tools` and `documents` are untrusted, and stay so through every operation.
  // Errors: kInvalidArgument (raise_exception, with its message), kBadData (a type error), kOutOfMemory (a limit).
  Result<std::vector<PromptPart>> Render(const Json& context) const;
  // Render, joined.
  Result<std::string> RenderText(const Json& context) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace edgewise
