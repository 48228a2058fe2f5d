// JSON in both directions: the context of a rendering, and the filter tojson.
#include <algorithm>
#include <cmath>

#include "base/strings.h"
#include "text/jinja/characters.h"
#include "text/jinja/runtime.h"

namespace edgewise::jinja {
namespace {

Result<Value> FromJsonAt(Runtime& runtime, const Json& json, bool trusted, int depth) {
  if (depth > runtime.limits().max_depth) {
    return MakeError(Code::kOutOfMemory, "chat template: context nested deeper than %d",
                     runtime.limits().max_depth);
  }
  if (json.is_null()) return Value::None();
  if (json.is_bool()) return Value::Bool(*json.AsBool());
  if (const std::string* text = json.AsString()) return runtime.MakeText(Text(*text, trusted));
  if (const JsonArray* array = json.AsArray()) {
    std::vector<Value> items;
    for (const Json& item : *array) {
      EW_TRY(Value value, FromJsonAt(runtime, item, trusted, depth + 1));
      items.push_back(std::move(value));
    }
    return runtime.MakeList(std::move(items));
  }
  if (const JsonObject* object = json.AsObject()) {
    EW_TRY(auto* dict, runtime.MakeDict());
    for (const auto& [key, member] : *object) {
      EW_TRY(Value value, FromJsonAt(runtime, member, trusted, depth + 1));
      EW_TRY(Value name, runtime.MakeText(Text(key, trusted)));
      dict->entries.emplace_back(std::move(name), std::move(value));
    }
    return Value::Of(dict);
  }
  if (const auto integer = json.AsInt(); json.is_integer() && integer) return Value::Int(*integer);
  return Value::Float(*json.AsDouble());
}

void AppendEscaped(const Text& text, bool ensure_ascii, Text* out) {
  const std::string& bytes = text.bytes();
  out->Append("\"", true);
  for (size_t at = 0; at < bytes.size();) {
    const Character character = DecodeAt(bytes, at);
    const char32_t code = character.code;
    const bool trusted = text.TrustedAt(at);
    if (code == '"' || code == '\\') {
      out->Append("\\", trusted);
      out->Append(text, at, at + 1);
    } else if (code == '\n' || code == '\r' || code == '\t' || code == '\b' || code == '\f') {
      const char letter = code == '\n'   ? 'n'
                          : code == '\r' ? 'r'
                          : code == '\t' ? 't'
                          : code == '\b' ? 'b'
                                         : 'f';
      out->Append(std::string{'\\', letter}, trusted);
    } else if (code < 0x20 || (ensure_ascii && code > 0x7E && code < 0x10000)) {
      out->Append(Format("\\u%04x", static_cast<unsigned>(code)), trusted);
    } else if (ensure_ascii && code >= 0x10000) {
      const auto high = static_cast<unsigned>(0xD800 + ((code - 0x10000) >> 10));
      const auto low = static_cast<unsigned>(0xDC00 + ((code - 0x10000) & 0x3FF));
      out->Append(Format("\\u%04x\\u%04x", high, low), trusted);
    } else {
      out->Append(text, at, at + character.length);
    }
    at += character.length;
  }
  out->Append("\"", true);
}

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}

  Status Write(const Value& value, int depth) {
    if (depth > runtime_.limits().max_depth) {
      return MakeError(Code::kOutOfMemory, "tojson: values nested deeper than %d",
                       runtime_.limits().max_depth);
    }
    const Text* text = value.AsText();
    EW_TRY(runtime_.ChargeBytes(text ? text->size() : 0));
    if (out_.size() > runtime_.limits().max_output_bytes) {
      return MakeError(Code::kOutOfMemory, "tojson: a text above the limit");
    }
    if (text) {
      AppendEscaped(*text, style_.ensure_ascii, &out_);
    } else if (const List* list = value.AsList()) {
      return WriteList(*list, depth);
    } else if (const Dict* dict = value.AsDict()) {
      return WriteDict(*dict, depth);
    } else {
      EW_TRY(const std::string scalar, Scalar(value));
      out_.Append(scalar, true);
    }
    return Ok{};
  }

  Text Take() { return std::move(out_); }

 private:
  static Result<std::string> Scalar(const Value& value) {
    if (value.is_none()) return std::string("null");
    if (value.is_bool()) return std::string(value.Integer() ? "true" : "false");
    if (value.is_int()) return std::to_string(value.Integer());
    if (!value.is_float())
      return MakeError(Code::kBadData, "tojson: a value of type '%s'", value.TypeName());
    const double number = value.Number();
    if (std::isnan(number)) return std::string("NaN");
    if (std::isinf(number)) return std::string(number < 0 ? "-Infinity" : "Infinity");
    return FormatFloat(number);
  }

  void Break(int depth) {
    if (style_.indent < 0) return;
    out_.Append(
        "\n" + std::string(static_cast<size_t>(style_.indent) * static_cast<size_t>(depth), ' '),
        true);
  }

  Status WriteList(const List& list, int depth) {
    out_.Append("[", true);
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_.Append(style_.item_separator, true);
      Break(depth + 1);
      EW_TRY(Write(list.items[i], depth + 1));
    }
    if (!list.items.empty()) Break(depth);
    out_.Append("]", true);
    return Ok{};
  }

  Status WriteDict(const Dict& dict, int depth) {
    std::vector<std::pair<Text, const Value*>> entries;
    for (const auto& [key, value] : dict.entries) {
      if (key.AsText()) {
        entries.emplace_back(*key.AsText(), &value);
      } else {
        EW_TRY(const std::string scalar, Scalar(key));
        entries.emplace_back(Text(scalar), &value);
      }
    }
    if (style_.sort_keys) {
      EW_TRY(runtime_.Charge(entries.size() * 8));
      std::sort(entries.begin(), entries.end(),
                [](const auto& a, const auto& b) { return a.first.bytes() < b.first.bytes(); });
    }
    out_.Append("{", true);
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_.Append(style_.item_separator, true);
      Break(depth + 1);
      AppendEscaped(entries[i].first, style_.ensure_ascii, &out_);
      out_.Append(style_.key_separator, true);
      EW_TRY(Write(*entries[i].second, depth + 1));
    }
    if (!entries.empty()) Break(depth);
    out_.Append("}", true);
    return Ok{};
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  Text out_;
};

}  // namespace

Result<Value> FromJson(Runtime& runtime, const Json& json, bool trusted) {
  return FromJsonAt(runtime, json, trusted, 0);
}

Result<Text> ToJson(Runtime& runtime, const Value& value, const JsonStyle& style) {
  JsonWriter writer(runtime, style);
  EW_TRY(writer.Write(value, 0));
  return writer.Take();
}

}  // namespace edgewise::jinja
