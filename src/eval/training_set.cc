#include "eval/training_set.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "base/json.h"
#include "base/strings.h"
#include "eval/json_lines.h"

namespace edgewise {
namespace {

struct MemberPair {
  const char* prompt;
  const char* response;
  const char* more;  // continues the prompt where present; null: none
};
constexpr std::array<MemberPair, 4> kPairs = {{{"prompt", "response", nullptr},
                                               {"prompt", "completion", nullptr},
                                               {"instruction", "output", "input"},
                                               {"question", "answer", nullptr}}};

Error NotText(const char* member, const Json& value) {
  return MakeError(Code::kBadData, "member \"%s\" must be a string, not %s", member,
                   value.TypeName());
}

Result<std::string> Text(const char* member, const Json& value) {
  if (const std::string* text = value.AsString()) return *text;
  return NotText(member, value);
}

// A conversation: everything before the assistant's last message is the prompt.
Result<TrainingExample> FromMessages(const Json& messages) {
  const JsonArray* array = messages.AsArray();
  if (!array) return Error{Code::kBadData, "member \"messages\" must be an array"};
  TrainingExample example;
  std::string before;
  bool answered = false;
  for (const Json& message : *array) {
    const Json* role = message.Find("role");
    const Json* content = message.Find("content");
    if (!role || !role->AsString() || !content || !content->AsString()) {
      return Error{Code::kBadData,
                   "each of \"messages\" must be an object with the strings \"role\" and "
                   "\"content\""};
    }
    if (*role->AsString() == "assistant") {
      example.prompt = before;
      example.response = *content->AsString();
      answered = true;
    }
    before += (before.empty() ? "" : "\n") + *content->AsString();
  }
  if (answered) return example;
  return Error{Code::kBadData, "\"messages\" has no message of the role \"assistant\""};
}

std::string MemberNames(const Json& object) {
  std::vector<std::string> names;
  for (const auto& [name, value] : *object.AsObject()) names.push_back(Quote(name, 40));
  return names.empty() ? "none" : Join(names, ", ");
}

Result<TrainingExample> FromObject(const Json& object) {
  if (!object.is_object()) {
    return MakeError(Code::kBadData, "each line must be one JSON object, not %s",
                     object.TypeName());
  }
  if (const Json* messages = object.Find("messages")) return FromMessages(*messages);
  TrainingExample example;
  for (const MemberPair& pair : kPairs) {
    const Json* prompt = object.Find(pair.prompt);
    const Json* response = object.Find(pair.response);
    if (!prompt || !response) continue;
    EW_TRY(example.prompt, Text(pair.prompt, *prompt));
    EW_TRY(example.response, Text(pair.response, *response));
    if (const Json* more = pair.more ? object.Find(pair.more) : nullptr) {
      EW_TRY(const std::string text, Text(pair.more, *more));
      if (!text.empty()) example.prompt += "\n" + text;
    }
    return example;
  }
  if (const Json* text = object.Find("text")) {
    EW_TRY(example.response, Text("text", *text));
    return example;
  }
  return MakeError(Code::kBadData,
                   "needs the members \"prompt\" and \"response\", or \"text\"; it has: %s",
                   MemberNames(object).c_str());
}

uint64_t CountLines(std::string_view text) {
  return static_cast<uint64_t>(std::count(text.begin(), text.end(), '\n'));
}

}  // namespace

Result<std::vector<TrainingExample>> ReadJsonLines(std::string_view text) {
  std::vector<TrainingExample> examples;
  EW_TRY(EachJsonLine(text, [&](const Json& object, uint64_t line) -> Status {
    EW_TRY(TrainingExample example, FromObject(object));
    example.line = line;
    examples.push_back(std::move(example));
    return Ok{};
  }));
  if (!examples.empty()) return examples;
  return Error{Code::kBadData, "holds no example: every line is blank"};
}

Result<std::vector<TrainingExample>> ReadSeparatedTexts(std::string_view text,
                                                        std::string_view separator) {
  if (separator.empty()) {
    return Error{Code::kInvalidArgument, "the separator of examples is empty"};
  }
  std::vector<TrainingExample> examples;
  uint64_t line = 1;
  const char* counted = text.data();
  for (const std::string_view piece : Split(text, separator)) {
    const std::string_view trimmed = Trim(piece);
    if (trimmed.empty()) continue;
    line += CountLines({counted, static_cast<size_t>(trimmed.data() - counted)});
    counted = trimmed.data();
    examples.push_back({"", std::string(trimmed), line});
  }
  if (!examples.empty()) return examples;
  return Error{Code::kBadData, "holds no example: there is nothing between the separators"};
}

}  // namespace edgewise
