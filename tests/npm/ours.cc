// Prints our renderings and token ids as JSON lines, for the scripts that compare them with the npm
// packages.
//   ours render CASES.json      [{"name", "template", "context"}] -> {"name", "text"} or {"name",
//   "error"} ours tokenize TOKENIZER.json INPUTS.json      ["text", ...] -> {"ids", "decoded"} or
//   {"error"}
#include <cstdio>
#include <cstring>
#include <ctime>

#include "base/file.h"
#include "base/json.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/tokenizer_files.h"

namespace edgewise {
namespace {

constexpr uint64_t kMaxFileBytes = 256u << 20;

Result<Json> ReadJson(const char* path) {
  EW_TRY(const std::string text, ReadFile(path, kMaxFileBytes));
  return ParseJson(text);
}

void PrintLine(const Json& json) { std::printf("%s\n", json.Dump().c_str()); }

Result<std::string> RenderCase(const Json& test) {
  const Json *source = test.Find("template"), *context = test.Find("context");
  if (!source || !source->AsString() || !context)
    return Error{Code::kBadData, "a case without template or context"};
  EW_TRY(const ChatTemplate parsed, ChatTemplate::Parse(*source->AsString()));
  return parsed.RenderText(*context);
}

Status Render(const char* path) {
  EW_TRY(const Json cases, ReadJson(path));
  if (!cases.AsArray()) return Error{Code::kBadData, "the cases must be an array"};
  for (const Json& test : *cases.AsArray()) {
    const Result<std::string> text = RenderCase(test);
    Json line;
    if (const Json* name = test.Find("name")) line.Set("name", *name);
    text ? line.Set("text", *text) : line.Set("error", text.error().message);
    PrintLine(line);
  }
  return Ok{};
}

Status Tokenize(const char* tokenizer_path, const char* inputs_path) {
  EW_TRY(const std::string json, ReadFile(tokenizer_path, kMaxFileBytes));
  EW_TRY(Vocab vocab, ParseTokenizerJson(json));
  EW_TRY(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Create(std::move(vocab)));
  EW_TRY(const Json inputs, ReadJson(inputs_path));
  if (!inputs.AsArray()) return Error{Code::kBadData, "the inputs must be an array"};
  for (const Json& input : *inputs.AsArray()) {
    if (!input.AsString()) return Error{Code::kBadData, "an input that is no string"};
    const auto ids =
        tokenizer->Encode(*input.AsString(), {.add_special = false, .parse_special = false});
    Json line;
    if (!ids) {
      line.Set("error", ids.error().message);
    } else {
      Json list{JsonArray()};
      for (const int32_t id : *ids) list.Append(id);
      line.Set("ids", std::move(list));
      EW_TRY(std::string decoded, tokenizer->Decode(*ids));
      line.Set("decoded", std::move(decoded));
    }
    PrintLine(line);
  }
  return Ok{};
}

Status Run(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "render") == 0) return Render(argv[2]);
  if (argc == 4 && std::strcmp(argv[1], "tokenize") == 0) return Tokenize(argv[2], argv[3]);
  return Error{Code::kInvalidArgument,
               "usage: ours render CASES.json | ours tokenize TOKENIZER.json INPUTS.json"};
}

}  // namespace
}  // namespace edgewise

int main(int argc, char** argv) {
  const edgewise::Status status = edgewise::Run(argc, argv);
  if (status) return 0;
  std::fprintf(stderr, "ours: %s\n", status.error().message.c_str());
  return 1;
}
