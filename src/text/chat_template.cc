#include "text/chat_template.h"

#include <algorithm>
#include <iterator>

#include "base/strings.h"
#include "text/jinja/globals.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"

namespace edgewise {
namespace {

// The variables whose text is the user's, the client's or a retrieved document's.
constexpr std::string_view kUntrusted[] = {"messages", "tools", "documents"};

std::tm LocalTime() {
  const std::time_t seconds = std::time(nullptr);
  std::tm local{};
  localtime_r(&seconds, &local);
  return local;
}

Result<jinja::Text> RenderBlock(const jinja::Block& block, jinja::Runtime& runtime,
                                const JsonObject& context) {
  EW_TRY(auto* globals, runtime.MakeScope(nullptr));
  EW_TRY(jinja::AddGlobals(runtime, globals));
  EW_TRY(auto* variables, runtime.MakeScope(globals));
  for (const auto& [name, json] : context) {
    const bool trusted =
        std::find(std::begin(kUntrusted), std::end(kUntrusted), name) == std::end(kUntrusted);
    EW_TRY(jinja::Value value, jinja::FromJson(runtime, json, trusted));
    variables->variables.emplace_back(name, std::move(value));
  }
  return jinja::Interpreter(runtime).Run(block, variables);
}

}  // namespace

struct ChatTemplate::Impl {
  jinja::Block block;
  JinjaLimits limits;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::Parse(std::string source, const JinjaLimits& limits) {
  EW_TRY(jinja::Block block, jinja::ParseTemplate(source, limits));
  return ChatTemplate(std::make_unique<Impl>(Impl{std::move(block), limits}));
}

Result<std::vector<PromptPart>> ChatTemplate::Render(const Json& context,
                                                     std::optional<std::tm> now) const {
  const JsonObject* variables = context.AsObject();
  if (!variables) {
    return MakeError(Code::kInvalidArgument, "chat template: the context must be an object, not %s",
                     context.TypeName());
  }
  jinja::Runtime runtime(impl_->limits, now ? *now : LocalTime());
  Result<jinja::Text> rendered = RenderBlock(impl_->block, runtime, *variables);
  if (!rendered) {
    const bool located =
        rendered.error().code == Code::kBadData || rendered.error().code == Code::kUnsupported;
    return located ? std::move(rendered).error().In("chat template") : std::move(rendered).error();
  }
  std::vector<PromptPart> parts;
  size_t begin = 0;
  for (const jinja::Text::Run& run : rendered->runs()) {
    parts.push_back({rendered->bytes().substr(begin, run.end - begin), run.trusted});
    begin = run.end;
  }
  return parts;
}

Result<std::string> ChatTemplate::RenderText(const Json& context,
                                             std::optional<std::tm> now) const {
  EW_TRY(const std::vector<PromptPart> parts, Render(context, now));
  std::string text;
  for (const PromptPart& part : parts) text += part.text;
  return text;
}

}  // namespace edgewise
