#include "train/dataset.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/file.h"
#include "base/json.h"
#include "base/strings.h"
#include "train/dataset_rows.h"
#include "train/example_encoder.h"

namespace edgewise::train {
namespace {

constexpr size_t kMaxReported = 20;
constexpr size_t kDropBytes = size_t{16} << 20;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// Names of a conversation's members, and of the roles in it.
struct Dialect {
  const char *turns, *role, *text;
  std::array<std::pair<std::string_view, std::string_view>, 3> roles;  // there, for templates
};
constexpr Dialect kShareGptDialect = {
    "conversations",
    "from",
    "value",
    {{{"system", "system"}, {"human", "user"}, {"gpt", "assistant"}}}};
constexpr Dialect kChatMlDialect = {
    "messages",
    "role",
    "content",
    {{{"system", "system"}, {"user", "user"}, {"assistant", "assistant"}}}};

Error Missing(const char* name) {
  return MakeError(Code::kBadData, "the member \"%s\" is missing", name);
}

// A text of the row. Errors: kBadData (absent unless `optional`, no string, a NUL in it).
Result<std::string_view> Member(const Json& object, const char* name, bool optional = false) {
  const Json* value = object.Find(name);
  if (value == nullptr || (optional && value->is_null())) {
    if (optional) return std::string_view();
    return Missing(name);
  }
  const std::string* text = value->AsString();
  if (text == nullptr) {
    return MakeError(Code::kBadData, "the member \"%s\" must be a string, not %s", name,
                     value->TypeName());
  }
  if (text->find('\0') == std::string::npos) return std::string_view(*text);
  return MakeError(Code::kBadData, "the member \"%s\" holds a NUL character", name);
}

Status AddText(const Json& row, const ExampleEncoder& encoder, Corpus* corpus) {
  EW_TRY(const std::string_view text, Member(row, "text"));
  return encoder.AddText(text, corpus);
}

Status AddInstruction(const Json& row, const char* input, const char* response,
                      const ExampleEncoder& encoder, Corpus* corpus) {
  Instruction example;
  EW_TRY(example.instruction, Member(row, "instruction"));
  EW_TRY(example.input, Member(row, input, true));
  EW_TRY(example.response, Member(row, response));
  return encoder.AddInstruction(example, corpus);
}

Status AddAlpaca(const Json& row, const ExampleEncoder& encoder, Corpus* corpus) {
  const bool output = row.Find("output") != nullptr || row.Find("response") == nullptr;
  return AddInstruction(row, "input", output ? "output" : "response", encoder, corpus);
}

Status AddDolly(const Json& row, const ExampleEncoder& encoder, Corpus* corpus) {
  return AddInstruction(row, "context", "response", encoder, corpus);
}

Status AddCompletion(const Json& row, const ExampleEncoder& encoder, Corpus* corpus) {
  EW_TRY(const std::string_view prompt, Member(row, "prompt"));
  EW_TRY(const std::string_view completion, Member(row, "completion"));
  return encoder.AddCompletion(prompt, completion, corpus);
}

Result<Message> ReadMessage(const Json& turn, const Dialect& dialect) {
  if (!turn.is_object()) {
    return MakeError(Code::kBadData, "it must be an object, not %s", turn.TypeName());
  }
  EW_TRY(const std::string_view role, Member(turn, dialect.role));
  EW_TRY(const std::string_view text, Member(turn, dialect.text));
  for (const auto& [name, meaning] : dialect.roles) {
    if (role == name) return Message{meaning, text};
  }
  return MakeError(Code::kBadData, "unknown %s %s; it may be %s, %s or %s", dialect.role,
                   Quote(role).c_str(), dialect.roles[0].first.data(),
                   dialect.roles[1].first.data(), dialect.roles[2].first.data());
}

Status AddConversation(const Json& row, const Dialect& dialect, const ExampleEncoder& encoder,
                       Corpus* corpus) {
  const Json* turns = row.Find(dialect.turns);
  if (turns == nullptr) return Missing(dialect.turns);
  if (turns->AsArray() == nullptr) {
    return MakeError(Code::kBadData, "the member \"%s\" must be an array, not %s", dialect.turns,
                     turns->TypeName());
  }
  std::vector<Message> messages;
  for (const Json& turn : *turns->AsArray()) {
    EW_TRY(const Message message,
           ReadMessage(turn, dialect).In(Format("message %zu", messages.size() + 1)));
    messages.push_back(message);
  }
  return encoder.AddConversation(messages, corpus);
}

Status AddShareGpt(const Json& row, const ExampleEncoder& encoder, Corpus* corpus) {
  return AddConversation(row, kShareGptDialect, encoder, corpus);
}

Status AddChatMl(const Json& row, const ExampleEncoder& encoder, Corpus* corpus) {
  return AddConversation(row, kChatMlDialect, encoder, corpus);
}

struct FormatRow {
  DatasetFormat id;
  const char* name;
  std::array<const char*, 2> keys;  // that tell it from the formats before; null: no more
  Status (*add)(const Json& row, const ExampleEncoder& encoder, Corpus* corpus);  // null: no JSON
};
constexpr std::array<FormatRow, 7> kFormats = {{
    {DatasetFormat::kText, "text", {}, nullptr},
    {DatasetFormat::kJsonLines, "jsonl", {"text", nullptr}, AddText},
    {DatasetFormat::kAlpaca, "alpaca", {"instruction", nullptr}, AddAlpaca},
    {DatasetFormat::kDolly, "dolly", {"instruction", "context"}, AddDolly},
    {DatasetFormat::kCompletion, "completion", {"prompt", "completion"}, AddCompletion},
    {DatasetFormat::kShareGpt, "sharegpt", {"conversations", nullptr}, AddShareGpt},
    {DatasetFormat::kChatMl, "chatml", {"messages", nullptr}, AddChatMl},
}};

const FormatRow& Row(DatasetFormat format) { return kFormats[static_cast<size_t>(format)]; }

std::string FormatNames() {
  std::vector<std::string> names;
  for (const FormatRow& row : kFormats) names.push_back(row.name);
  return Join(names, ", ");
}

// The last format of the table whose keys the row has.
Result<DatasetFormat> Recognise(const Json& row) {
  for (auto format = kFormats.rbegin(); format != kFormats.rend(); ++format) {
    if (format->add != nullptr &&
        std::all_of(format->keys.begin(), format->keys.end(),
                    [&](auto key) { return key == nullptr || row.Find(key) != nullptr; })) {
      return format->id;
    }
  }
  return MakeError(Code::kBadData,
                   "no members of a known format: \"messages\", \"conversations\", "
                   "\"completion\", \"instruction\" or \"text\"");
}

Status AddDocument(std::string_view text, const ExampleEncoder& encoder, Corpus* corpus) {
  if (!IsUtf8(text)) return Error{Code::kBadData, "the document is not UTF-8"};
  if (text.find('\0') == text.npos) return encoder.AddText(text, corpus);
  return Error{Code::kBadData, "the document holds a NUL character"};
}

// Appends a row of JSON, and finds the format where it is not known yet.
Status AddJson(std::string_view text, const DatasetOptions& options, const ExampleEncoder& encoder,
               std::optional<DatasetFormat>* format, Corpus* corpus) {
  if (text.size() > options.max_row_bytes) {
    return MakeError(Code::kBadData, "the row has %zu bytes; at most %llu are read here",
                     text.size(), static_cast<unsigned long long>(options.max_row_bytes));
  }
  EW_TRY(const Json row, ParseJson(text));
  if (!row.is_object()) {
    return MakeError(Code::kBadData, "a row must be an object, not %s", row.TypeName());
  }
  DatasetFormat chosen;
  if (*format) {
    chosen = **format;
  } else {
    EW_TRY(chosen, Recognise(row));
  }
  EW_TRY(Row(chosen).add(row, encoder, corpus));
  *format = chosen;
  return Ok{};
}

Error NoGoodRow(const Dataset& dataset, std::optional<DatasetFormat> format) {
  if (dataset.bad_rows.empty()) return Error{Code::kBadData, "holds nothing to train on"};
  const BadRow& first = dataset.bad_rows.front();
  const std::string as = format ? std::string(" as ") + Row(*format).name : std::string();
  return MakeError(Code::kBadData,
                   "none of %llu rows can be read%s; line %llu: %s. The formats are %s; name the "
                   "file's where it is not found out",
                   static_cast<unsigned long long>(dataset.bad_row_count), as.c_str(),
                   static_cast<unsigned long long>(first.line), first.problem.c_str(),
                   FormatNames().c_str());
}

// `file` is the one that holds the content, or null.
Result<Dataset> Read(std::string_view content, const MappedFile* file, const Tokenizer& tokenizer,
                     std::string_view chat_template, const DatasetOptions& options) {
  if (content.starts_with(kByteOrderMark)) content.remove_prefix(kByteOrderMark.size());
  const size_t first = content.find_first_not_of(" \t\r\n");
  const char begin = first == content.npos ? '\0' : content[first];
  std::optional<DatasetFormat> format = options.format;
  if (!format && begin != '{' && begin != '[') format = DatasetFormat::kText;
  const bool is_text = format == DatasetFormat::kText;
  const ExampleEncoder encoder(tokenizer, chat_template);
  Dataset dataset;
  RowReader rows(content, is_text        ? RowShape::kDocuments
                          : begin == '[' ? RowShape::kArray
                                         : RowShape::kLines);
  size_t dropped = 0;
  while (const std::optional<DatasetRow> row = rows.Next()) {
    const Status added = row->problem ? Status(Error{Code::kBadData, row->problem})
                         : is_text    ? AddDocument(row->text, encoder, &dataset.corpus)
                                   : AddJson(row->text, options, encoder, &format, &dataset.corpus);
    if (!added) {
      if (options.strict) {
        return Error(added.error())
            .In(Format("line %llu", static_cast<unsigned long long>(row->line)));
      }
      if (dataset.bad_row_count++ < kMaxReported) {
        dataset.bad_rows.push_back({row->line, added.error().message});
      }
    }
    if (file != nullptr && rows.offset() - dropped >= kDropBytes) {
      file->DropPages(std::as_bytes(std::span(content.substr(dropped, rows.offset() - dropped))));
      dropped = rows.offset();
    }
  }
  if (dataset.corpus.size() == 0) return NoGoodRow(dataset, format);
  dataset.format = *format;
  return dataset;
}

}  // namespace

const char* DatasetFormatName(DatasetFormat format) { return Row(format).name; }

Result<DatasetFormat> ParseDatasetFormat(std::string_view name) {
  for (const FormatRow& row : kFormats) {
    if (name == row.name) return row.id;
  }
  return MakeError(Code::kInvalidArgument, "unknown format of training data %s; there are %s",
                   Quote(name).c_str(), FormatNames().c_str());
}

Result<Dataset> ReadDataset(const std::string& path, const Tokenizer& tokenizer,
                            std::string_view chat_template, const DatasetOptions& options) {
  EW_TRY(const MappedFile file, MappedFile::Open(path));
  const auto* data = reinterpret_cast<const char*>(file.bytes().data());
  return Read({data, file.bytes().size()}, &file, tokenizer, chat_template, options).In(path);
}

Result<Dataset> ParseDataset(std::string_view content, const Tokenizer& tokenizer,
                             std::string_view chat_template, const DatasetOptions& options) {
  return Read(content, nullptr, tokenizer, chat_template, options);
}

}  // namespace edgewise::train
