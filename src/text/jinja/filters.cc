// Filters of texts, numbers and single values.
#include "text/jinja/filters.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/strings.h"
#include "text/jinja/characters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/strings.h"

namespace edgewise::jinja {
namespace {

bool StartsTitleWord(char32_t code) {
  return code == '-' || code == '(' || code == '{' || code == '[' || code == '<' || IsSpace(code);
}
Text TitleFilterText(const Text& text) { return Title(text, StartsTitleWord); }

template <Text (*change)(const Text&)>
Result<Value> ChangeFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "a case filter", {}));
  EW_TRY(const Text text, ToText(runtime, self));
  EW_TRY(runtime.ChargeBytes(text.size() * 8));
  return runtime.MakeText(change(text));
}

Result<Value> TrimFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "trim", {"chars"}));
  EW_TRY(const Text text, ToText(runtime, self));
  const Text* chars = nullptr;
  if (args[0] && !args[0]->is_none()) {
    EW_TRY(chars, TextArgument(args[0], "trim"));
  }
  return runtime.MakeText(Strip(text, Side::kBoth, chars));
}

Result<Value> ReplaceFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "replace", {"old", "new", "count"}, 2));
  EW_TRY(const Text text, ToText(runtime, self));
  EW_TRY(const Text from, ToText(runtime, *args[0]));
  EW_TRY(const Text to, ToText(runtime, *args[1]));
  EW_TRY(const int64_t count, IntegerArgument(args[2], "replace", -1));
  EW_TRY(Text result, Replace(runtime, text, from, to, count));
  return runtime.MakeText(std::move(result));
}

Result<Value> StringFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "string", {}));
  if (self.AsText()) return self;
  EW_TRY(Text text, ToText(runtime, self));
  return runtime.MakeText(std::move(text));
}

Result<Value> SafeFilter(Runtime&, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "safe", {}));
  return self;
}

Result<Value> EscapeFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "escape", {}));
  EW_TRY(Text text, ToText(runtime, self));
  constexpr std::pair<std::string_view, std::string_view> kEntities[] = {
      {"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {"\"", "&#34;"}};
  for (const auto& [from, to] : kEntities) {
    EW_TRY(text, Replace(runtime, text, Text(from), Text(to), -1));
  }
  return runtime.MakeText(std::move(text));
}

Result<Value> IndentFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "indent", {"width", "first", "blank"}));
  EW_TRY(Text text, ToText(runtime, self));
  Text indention("    ");
  if (args[0] && args[0]->AsText()) {
    indention = *args[0]->AsText();
  } else if (args[0]) {
    EW_TRY(const int64_t width, IntegerArgument(args[0], "indent", 4));
    if (width > 1000) return MakeError(Code::kBadData, "indent: a width above 1000");
    indention = Text(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '));
  }
  const bool first = args[1] && args[1]->Truthy(), blank = args[2] && args[2]->Truthy();
  text.Append("\n", true);  // so that a last, empty line counts as one
  Text result;
  bool start = true;
  for (const Text& line : SplitLines(text)) {
    if (!start) result.Append("\n", true);
    if (start ? first : blank || !line.empty()) {
      EW_TRY(runtime.ChargeBytes(indention.size()));
      result.Append(indention);
    }
    result.Append(line);
    start = false;
    if (result.size() > runtime.limits().max_output_bytes) {
      return MakeError(Code::kOutOfMemory, "indent: a text above the limit");
    }
  }
  return runtime.MakeText(std::move(result));
}

Result<Value> ToJsonFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args,
         Bind(arguments, "tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  style.ensure_ascii = args[0] && args[0]->Truthy();
  style.sort_keys = args[3] && args[3]->Truthy();
  EW_TRY(const int64_t indent, IntegerArgument(args[1], "tojson", -1));
  if (indent > 100) return MakeError(Code::kBadData, "tojson: an indent above 100");
  style.indent =
      static_cast<int>(std::max<int64_t>(indent, args[1] && !args[1]->is_none() ? 0 : -1));
  if (style.indent >= 0) style.item_separator = ",";
  if (args[2] && !args[2]->is_none()) {
    EW_TRY(const std::vector<Value> separators, Elements(runtime, *args[2]));
    if (separators.size() != 2)
      return MakeError(Code::kBadData, "tojson: separators must be two strings");
    EW_TRY(const Text* item, TextArgument(&separators[0], "tojson"));
    EW_TRY(const Text* key, TextArgument(&separators[1], "tojson"));
    if (!item->Trusted() || !key->Trusted())
      return MakeError(Code::kBadData, "tojson: separators from a message");
    style.item_separator = item->bytes();
    style.key_separator = key->bytes();
  }
  EW_TRY(Text text, ToJson(runtime, self, style));
  return runtime.MakeText(std::move(text));
}

Result<Value> DefaultFilter(Runtime&, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "default", {"default_value", "boolean"}));
  const bool absent = self.is_undefined() || (args[1] && args[1]->Truthy() && !self.Truthy());
  if (!absent) return self;
  return args[0] ? *args[0] : Value::String("");
}

// The number at the start of the whole text, as Python's float(); nullopt when it is none.
std::optional<double> NumberOf(const Value& value) {
  if (value.is_number()) return value.Number();
  const Text* text = value.AsText();
  if (!text) return std::nullopt;
  const Result<double> number = ParseDouble(Trim(text->bytes()));
  if (!number) return std::nullopt;
  return *number;
}

Result<Value> IntFilter(Runtime&, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "int", {"default", "base"}));
  EW_TRY(const int64_t base, IntegerArgument(args[1], "int", 10));
  if (base != 10) return MakeError(Code::kUnsupported, "int: a base other than 10");
  if (self.is_int() || self.is_bool()) return Value::Int(self.Integer());
  if (const Text* text = self.AsText()) {
    const Result<int64_t> integer = ParseInt(Trim(text->bytes()));
    if (integer) return Value::Int(*integer);
  }
  const std::optional<double> number = NumberOf(self);
  if (number && std::fabs(*number) < 0x1p63) return Value::Int(static_cast<int64_t>(*number));
  return args[0] ? *args[0] : Value::Int(0);
}

Result<Value> FloatFilter(Runtime&, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "float", {"default"}));
  if (const std::optional<double> number = NumberOf(self)) return Value::Float(*number);
  return args[0] ? *args[0] : Value::Float(0);
}

Result<Value> AbsFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "abs", {}));
  if (!self.is_number()) return MakeError(Code::kBadData, "abs of a '%s'", self.TypeName());
  if (self.is_float()) return Value::Float(std::fabs(self.Number()));
  if (self.Integer() >= 0) return Value::Int(self.Integer());
  return Arithmetic(runtime, Operator::kSubtract, Value::Int(0), self);
}

Result<Value> RoundFilter(Runtime&, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "round", {"precision", "method"}));
  if (!self.is_number()) return MakeError(Code::kBadData, "round of a '%s'", self.TypeName());
  EW_TRY(const int64_t precision, IntegerArgument(args[0], "round", 0));
  if (precision < 0 || precision > 300)
    return MakeError(Code::kUnsupported, "round: a precision outside 0 ... 300");
  std::string method = "common";
  if (args[1]) {
    EW_TRY(const Text* name, TextArgument(args[1], "round"));
    method = name->bytes();
  }
  const double value = self.Number(), scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value::Float(std::ceil(value * scale) / scale);
  if (method == "floor") return Value::Float(std::floor(value * scale) / scale);
  if (method != "common")
    return MakeError(Code::kBadData, "round: the method must be common, ceil or floor");
  if (self.is_int() || self.is_bool()) return self;
  // The decimal conversion rounds correctly, as Python's round() does.
  return Value::Float(
      std::strtod(Format("%.*f", static_cast<int>(precision), value).c_str(), nullptr));
}

Result<Value> LengthFilter(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "length", {}));
  if (self.is_undefined()) return Value::Int(0);
  if (const List* list = self.AsList()) return Value::Int(static_cast<int64_t>(list->items.size()));
  if (const Dict* dict = self.AsDict())
    return Value::Int(static_cast<int64_t>(dict->entries.size()));
  const Text* text = self.AsText();
  if (!text) return MakeError(Code::kBadData, "length of a '%s'", self.TypeName());
  EW_TRY(runtime.ChargeBytes(text->size()));
  return Value::Int(static_cast<int64_t>(CountCharacters(text->bytes())));
}

constexpr FilterEntry kFilters[] = {
    {"abs", AbsFilter},
    {"capitalize", ChangeFilter<Capitalize>},
    {"count", LengthFilter},
    {"d", DefaultFilter},
    {"default", DefaultFilter},
    {"e", EscapeFilter},
    {"escape", EscapeFilter},
    {"float", FloatFilter},
    {"indent", IndentFilter},
    {"int", IntFilter},
    {"length", LengthFilter},
    {"lower", ChangeFilter<Lower>},
    {"replace", ReplaceFilter},
    {"round", RoundFilter},
    {"safe", SafeFilter},
    {"string", StringFilter},
    {"title", ChangeFilter<TitleFilterText>},
    {"tojson", ToJsonFilter},
    {"trim", TrimFilter},
    {"upper", ChangeFilter<Upper>},
};

}  // namespace

std::span<const FilterEntry> TextAndNumberFilters() { return kFilters; }

const FilterEntry* FindFilter(std::string_view name) {
  for (const auto filters : {TextAndNumberFilters(), SequenceFilters()}) {
    const auto found = std::find_if(filters.begin(), filters.end(),
                                    [&](const FilterEntry& filter) { return filter.name == name; });
    if (found != filters.end()) return &*found;
  }
  return nullptr;
}

}  // namespace edgewise::jinja
