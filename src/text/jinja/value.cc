#include "text/jinja/value.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <string>

#include "base/strings.h"
#include "text/jinja/characters.h"
#include "text/jinja/runtime.h"
#include "text/unicode.h"

namespace edgewise::jinja {

bool Value::Truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return Number() != 0;
  if (const Text* text = AsText()) return !text->empty();
  if (const List* list = AsList()) return !list->items.empty();
  if (const Dict* dict = AsDict()) return !dict->entries.empty();
  return true;
}

const char* Value::TypeName() const {
  if (is_undefined()) return "undefined";
  if (is_none()) return "None";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (AsText()) return "str";
  if (const List* list = AsList()) return list->tuple ? "tuple" : "list";
  if (AsDict()) return "dict";
  if (AsNamespace()) return "namespace";
  if (AsLoop()) return "loop";
  return "function";
}

namespace {

Error TooDeep(const Runtime& runtime) {
  return MakeError(Code::kOutOfMemory, "chat template: values nested deeper than %d",
                   runtime.limits().max_depth);
}

Result<bool> EqualAt(Runtime& runtime, const Value& a, const Value& b, int depth);

Result<bool> EqualLists(Runtime& runtime, const List& a, const List& b, int depth) {
  if (a.tuple != b.tuple || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    EW_TRY(const bool same, EqualAt(runtime, a.items[i], b.items[i], depth + 1));
    if (!same) return false;
  }
  return true;
}

Result<bool> EqualDicts(Runtime& runtime, const Dict& a, Dict* b, int depth) {
  if (a.entries.size() != b->entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    EW_TRY(const Value* other, runtime.Find(b, key));
    if (!other) return false;
    EW_TRY(const bool same, EqualAt(runtime, value, *other, depth + 1));
    if (!same) return false;
  }
  return true;
}

Result<bool> EqualAt(Runtime& runtime, const Value& a, const Value& b, int depth) {
  if (depth > runtime.limits().max_depth) return TooDeep(runtime);
  if (a.is_number() && b.is_number()) {
    return a.is_float() || b.is_float() ? a.Number() == b.Number() : a.Integer() == b.Integer();
  }
  if (a.AsText() && b.AsText()) {
    const std::string &left = a.AsText()->bytes(), &right = b.AsText()->bytes();
    if (left.size() != right.size()) return false;
    if (left.size() > 256) EW_TRY(runtime.ChargeBytes(left.size()));
    return left == right;
  }
  if (a.AsList() && b.AsList()) {
    EW_TRY(runtime.Charge(1));
    return EqualLists(runtime, *a.AsList(), *b.AsList(), depth);
  }
  if (a.AsDict() && b.AsDict()) return EqualDicts(runtime, *a.AsDict(), b.AsDict(), depth);
  if (a.is_undefined() || a.is_none())
    return a.is_undefined() == b.is_undefined() && a.is_none() == b.is_none();
  if (a.AsNamespace()) return a.AsNamespace() == b.AsNamespace();
  if (a.AsCallable()) return a.AsCallable() == b.AsCallable();
  if (a.AsLoop()) return a.AsLoop() == b.AsLoop();
  return false;
}

Result<bool> LessAt(Runtime& runtime, const Value& a, const Value& b, int depth) {
  if (depth > runtime.limits().max_depth) return TooDeep(runtime);
  if (a.is_number() && b.is_number()) {
    return a.is_float() || b.is_float() ? a.Number() < b.Number() : a.Integer() < b.Integer();
  }
  if (a.AsText() && b.AsText()) {
    EW_TRY(runtime.ChargeBytes(std::min(a.AsText()->size(), b.AsText()->size())));
    return a.AsText()->bytes() < b.AsText()->bytes();
  }
  const List *left = a.AsList(), *right = b.AsList();
  if (left && right && left->tuple == right->tuple) {
    for (size_t i = 0; i < left->items.size() && i < right->items.size(); ++i) {
      EW_TRY(const bool same, EqualAt(runtime, left->items[i], right->items[i], depth + 1));
      if (!same) return LessAt(runtime, left->items[i], right->items[i], depth + 1);
    }
    return left->items.size() < right->items.size();
  }
  return MakeError(Code::kBadData, "'<' between '%s' and '%s'", a.TypeName(), b.TypeName());
}

bool IsPrintable(char32_t code) {
  const Category category = CategoryOf(code);
  return code == ' ' ||
         category < Category::kZs;  // the last ones are separators and control characters
}

// Appends Python's repr of a string: the quotes are ours, every character keeps its origin.
void AppendQuoted(const Text& text, Text* out) {
  const std::string& bytes = text.bytes();
  const bool has_single = bytes.find('\'') != std::string::npos;
  const char quote = has_single && bytes.find('"') == std::string::npos ? '"' : '\'';
  out->Append(std::string_view(&quote, 1), true);
  for (size_t at = 0; at < bytes.size();) {
    const Character character = DecodeAt(bytes, at);
    const char32_t code = character.code;
    const bool trusted = text.TrustedAt(at);
    if (code == '\n' || code == '\r' || code == '\t') {
      out->Append(code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t", trusted);
    } else if (code == '\\' || code == static_cast<unsigned char>(quote)) {
      out->Append("\\", trusted);
      out->Append(text, at, at + 1);
    } else if (!IsPrintable(code)) {
      const auto number = static_cast<unsigned>(code);
      out->Append(Format(code < 0x100     ? "\\x%02x"
                         : code < 0x10000 ? "\\u%04x"
                                          : "\\U%08x",
                         number),
                  trusted);
    } else {
      out->Append(text, at, at + character.length);
    }
    at += character.length;
  }
  out->Append(std::string_view(&quote, 1), true);
}

Status AppendText(Runtime& runtime, const Value& value, int depth, Text* out);

Status AppendElements(Runtime& runtime, const List& list, int depth, Text* out) {
  out->Append(list.tuple ? "(" : "[", true);
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out->Append(", ", true);
    EW_TRY(AppendText(runtime, list.items[i], depth + 1, out));
  }
  out->Append(!list.tuple ? "]" : list.items.size() == 1 ? ",)" : ")", true);
  return Ok{};
}

Status AppendEntries(Runtime& runtime, const Dict& dict, int depth, Text* out) {
  out->Append("{", true);
  bool first = true;
  for (const auto& [key, value] : dict.entries) {
    if (!first) out->Append(", ", true);
    first = false;
    EW_TRY(AppendText(runtime, key, depth + 1, out));
    out->Append(": ", true);
    EW_TRY(AppendText(runtime, value, depth + 1, out));
  }
  out->Append("}", true);
  return Ok{};
}

// str() at depth 0, repr() below.
Status AppendText(Runtime& runtime, const Value& value, int depth, Text* out) {
  if (depth > runtime.limits().max_depth) return TooDeep(runtime);
  const Text* text = value.AsText();
  EW_TRY(runtime.ChargeBytes(text ? text->size() : 0));
  if (out->size() > runtime.limits().max_output_bytes) {
    return MakeError(Code::kOutOfMemory, "chat template: a text above the limit");
  }
  if (text) {
    depth == 0 ? out->Append(*text) : AppendQuoted(*text, out);
  } else if (value.is_undefined()) {
    if (depth > 0) out->Append("Undefined", true);
  } else if (value.is_none()) {
    out->Append("None", true);
  } else if (value.is_bool()) {
    out->Append(value.Integer() ? "True" : "False", true);
  } else if (value.is_int()) {
    out->Append(std::to_string(value.Integer()), true);
  } else if (value.is_float()) {
    out->Append(FormatFloat(value.Number()), true);
  } else if (const List* list = value.AsList()) {
    return AppendElements(runtime, *list, depth, out);
  } else if (const Dict* dict = value.AsDict()) {
    return AppendEntries(runtime, *dict, depth, out);
  } else {
    out->Append(Format("<%s>", value.TypeName()), true);
  }
  return Ok{};
}

}  // namespace

Result<bool> Equal(Runtime& runtime, const Value& a, const Value& b) {
  return EqualAt(runtime, a, b, 0);
}

Result<bool> Less(Runtime& runtime, const Value& a, const Value& b) {
  return LessAt(runtime, a, b, 0);
}

Result<bool> Contains(Runtime& runtime, const Value& container, const Value& item) {
  if (const Text* text = container.AsText()) {
    const Text* part = item.AsText();
    if (!part)
      return MakeError(Code::kBadData, "'in <string>' needs a string on its left, got '%s'",
                       item.TypeName());
    EW_TRY(runtime.ChargeBytes(text->size() + part->size()));
    return part->empty() || memmem(text->bytes().data(), text->size(), part->bytes().data(),
                                   part->size()) != nullptr;
  }
  if (const List* list = container.AsList()) {
    EW_TRY(runtime.Charge(1 + list->items.size() / 16));
    for (const Value& value : list->items) {
      EW_TRY(const bool same, Equal(runtime, value, item));
      if (same) return true;
    }
    return false;
  }
  if (Dict* dict = container.AsDict()) {
    EW_TRY(const Value* found, runtime.Find(dict, item));
    return found != nullptr;
  }
  if (container.is_undefined()) return false;
  return MakeError(Code::kBadData, "'in' with a '%s' on its right", container.TypeName());
}

Result<Text> ToText(Runtime& runtime, const Value& value) {
  Text text;
  EW_TRY(AppendText(runtime, value, 0, &text));
  return text;
}

Result<std::vector<Value>> Elements(Runtime& runtime, const Value& value) {
  std::vector<Value> elements;
  if (value.is_undefined()) return elements;
  if (const List* list = value.AsList()) {
    EW_TRY(runtime.Charge(1 + list->items.size()));
    return list->items;
  }
  if (const Dict* dict = value.AsDict()) {
    EW_TRY(runtime.Charge(1 + dict->entries.size()));
    for (const auto& entry : dict->entries) elements.push_back(entry.first);
    return elements;
  }
  if (const Text* text = value.AsText()) {
    EW_TRY(runtime.Charge(1 + CountCharacters(text->bytes())));
    const std::vector<size_t> offsets = CharacterOffsets(text->bytes());
    for (size_t i = 0; i + 1 < offsets.size(); ++i) {
      elements.push_back(Value::String(text->Slice(offsets[i], offsets[i + 1])));
    }
    return elements;
  }
  return MakeError(Code::kBadData, "a '%s' is not iterable", value.TypeName());
}

std::string FormatFloat(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const double magnitude = std::fabs(value);
  const bool fixed = magnitude == 0 || (magnitude >= 1e-4 && magnitude < 1e16);
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value,
                                 fixed ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer, end.ptr);
  if (fixed && text.find('.') == std::string::npos) text += ".0";
  return text;
}

}  // namespace edgewise::jinja
