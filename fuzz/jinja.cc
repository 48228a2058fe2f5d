// Fuzzes the chat templates: whatever the template, rendering ends within its limits, and a
// character that only the messages hold never comes out as trusted text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/json.h"
#include "text/chat_template.h"

namespace {

constexpr char kMark[] = "\xE2\x98\x83";  // U+2603

const edgewise::Json& Context() {
  static const edgewise::Json context = [] {
    const std::string mark = kMark;
    const auto parsed = edgewise::ParseJson(
        R"({"messages": [{"role": "system", "content": "Be brief. )" + mark + R"("},)" +
        R"({"role": "user", "content": " Hello )" + mark + R"(,\nworld 42 "},)" +
        R"({"role": "assistant", "content": null, "n": 2.5, "tool_calls": [{"id": ")" + mark +
        R"(", "function": {"name": "f", "arguments": {"a": [1, true, "x"], ")" + mark +
        R"(": {}}}}]},)" + R"({"role": "tool", "content": [{"type": "text", "text": "y)" + mark +
        R"("}]}],)" +
        R"("tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],)" +
        R"("bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true})");
    if (!parsed) std::abort();
    return *parsed;
  }();
  return context;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string source(reinterpret_cast<const char*>(data), size);
  const edgewise::JinjaLimits limits{.max_steps = 20'000,
                                     .max_output_bytes = 1 << 16,
                                     .max_depth = 32,
                                     .max_template_bytes = 1 << 16};
  const auto parsed = edgewise::ChatTemplate::Parse(source, limits);
  if (!parsed) {
    if (parsed.error().message.empty()) std::abort();
    return 0;
  }
  const auto parts = parsed->Render(Context(), std::tm{});
  if (!parts) return 0;
  size_t total = 0;
  for (const auto& part : *parts) {
    total += part.text.size();
    if (part.text.empty()) std::abort();
    // A template can spell the mark itself, in its text or as an escape.
    const bool spelled =
        source.find(kMark) != std::string::npos || source.find('\\') != std::string::npos;
    if (part.trusted && !spelled && part.text.find(kMark) != std::string::npos) std::abort();
  }
  if (total > limits.max_output_bytes) std::abort();
  return 0;
}
