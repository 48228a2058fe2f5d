#include "base/json.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/strings.h"

namespace edgewise {
namespace {

// Builds a Json from nlohmann's events, so that depth and duplicate keys are checked before
// anything is stored.
class Builder {
 public:
  using Number = nlohmann::json;
  explicit Builder(const JsonLimits& limits) : limits_(limits) {}

  bool null() { return Add(Json()); }
  bool boolean(bool value) { return Add(Json(value)); }
  bool number_integer(int64_t value) { return Add(Json(value)); }
  bool number_unsigned(uint64_t value) {
    if (value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Add(Json(static_cast<int64_t>(value)));
    }
    return Add(Json(value));
  }
  bool number_float(double value, const std::string&) { return Add(Json(value)); }
  bool string(std::string& value) { return Add(Json(std::move(value))); }
  bool binary(std::vector<uint8_t>&) { return false; }  // not part of JSON text
  bool start_object(size_t) { return Open(Json(JsonObject())); }
  bool start_array(size_t) { return Open(Json(JsonArray())); }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }
  bool key(std::string& name) {
    if (!stack_.back().keys.insert(name).second) {
      return Fail(
          MakeError(Code::kBadData, "the key %s appears twice in one object", Quote(name).c_str()));
    }
    stack_.back().key = std::move(name);
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) {
    // nlohmann's text is "[json.exception.parse_error.101] parse error at line 1, column 2: ...":
    // keep what follows "] ".
    const std::string_view text = error.what();
    const size_t start = text.find("] ");
    return Fail(MakeError(Code::kBadData, "invalid JSON at byte %zu: %s", position,
                          std::string(start == text.npos ? text : text.substr(start + 2)).c_str()));
  }

  Result<Json> Take() && {
    if (failed_) return std::move(error_);
    return std::move(root_);
  }

 private:
  struct Level {
    Json container;
    std::string key;                       // of the member being read
    std::unordered_set<std::string> keys;  // seen so far
  };

  bool Fail(Error error) {
    error_ = std::move(error);
    failed_ = true;
    return false;
  }
  bool Open(Json container) {
    if (static_cast<int>(stack_.size()) >= limits_.max_depth) {
      return Fail(
          MakeError(Code::kBadData, "JSON nested deeper than %d levels", limits_.max_depth));
    }
    stack_.push_back({std::move(container), {}, {}});
    return true;
  }
  bool Close() {
    Json done = std::move(stack_.back().container);
    stack_.pop_back();
    return Add(std::move(done));
  }
  bool Add(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
    } else if (JsonObject* object = stack_.back().container.AsObject()) {
      object->emplace_back(std::move(stack_.back().key), std::move(value));
    } else {
      stack_.back().container.AsArray()->push_back(std::move(value));
    }
    return true;
  }

  JsonLimits limits_;
  std::vector<Level> stack_;
  Json root_;
  Error error_{Code::kBadData, "invalid JSON"};
  bool failed_ = false;
};

void DumpString(std::string_view text, std::string* out) {
  *out += '"';
  for (const char c : IsUtf8(text) ? std::string(text) : ReplaceInvalidUtf8(text)) {
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          *out += Format("\\u%04x", c);
        } else {
          *out += c;
        }
    }
  }
  *out += '"';
}

void DumpDouble(double value, std::string* out) {
  if (!std::isfinite(value)) {
    *out += "null";
    return;
  }
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
  const std::string_view digits(buffer, static_cast<size_t>(end - buffer));
  *out += digits;
  if (digits.find_first_of(".e") == digits.npos) *out += ".0";
}

class Dumper {
 public:
  Dumper(int indent, std::string* out) : indent_(indent), out_(out) {}

  void Value(const Json& value, int level) {
    if (const auto* text = value.AsString()) {
      DumpString(*text, out_);
    } else if (const auto* array = value.AsArray()) {
      List('[', ']', array->size(), level, [&](size_t i) { Value((*array)[i], level + 1); });
    } else if (const auto* object = value.AsObject()) {
      List('{', '}', object->size(), level, [&](size_t i) {
        DumpString((*object)[i].first, out_);
        *out_ += indent_ < 0 ? ":" : ": ";
        Value((*object)[i].second, level + 1);
      });
    } else if (const auto boolean = value.AsBool()) {
      *out_ += *boolean ? "true" : "false";
    } else if (value.is_integer()) {
      if (const auto integer = value.AsInt()) {
        *out_ += std::to_string(*integer);
      } else {
        *out_ += std::to_string(*value.AsUint());
      }
    } else if (const auto number = value.AsDouble()) {
      DumpDouble(*number, out_);
    } else {
      *out_ += "null";
    }
  }

 private:
  template <class Item>
  void List(char open, char close, size_t count, int level, Item item) {
    *out_ += open;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) *out_ += ',';
      NewLine(level + 1);
      item(i);
    }
    if (count > 0) NewLine(level);
    *out_ += close;
  }
  void NewLine(int level) {
    if (indent_ < 0) return;
    *out_ += '\n';
    out_->append(static_cast<size_t>(indent_ * level), ' ');
  }
  int indent_;
  std::string* out_;
};

}  // namespace

bool Json::is_integer() const {
  return std::holds_alternative<int64_t>(value_) || std::holds_alternative<uint64_t>(value_);
}

std::optional<bool> Json::AsBool() const {
  if (const bool* value = std::get_if<bool>(&value_)) return *value;
  return std::nullopt;
}

std::optional<int64_t> Json::AsInt() const {
  if (const int64_t* value = std::get_if<int64_t>(&value_)) return *value;
  if (const uint64_t* value = std::get_if<uint64_t>(&value_);
      value && *value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return static_cast<int64_t>(*value);
  }
  return std::nullopt;
}

std::optional<uint64_t> Json::AsUint() const {
  if (const uint64_t* value = std::get_if<uint64_t>(&value_)) return *value;
  if (const int64_t* value = std::get_if<int64_t>(&value_); value && *value >= 0) {
    return static_cast<uint64_t>(*value);
  }
  return std::nullopt;
}

std::optional<double> Json::AsDouble() const {
  if (const double* value = std::get_if<double>(&value_)) return *value;
  if (const int64_t* value = std::get_if<int64_t>(&value_)) return static_cast<double>(*value);
  if (const uint64_t* value = std::get_if<uint64_t>(&value_)) return static_cast<double>(*value);
  return std::nullopt;
}

const Json* Json::Find(std::string_view key) const {
  const JsonObject* object = AsObject();
  if (!object) return nullptr;
  for (const auto& [name, value] : *object) {
    if (name == key) return &value;
  }
  return nullptr;
}

Json& Json::Set(std::string_view key, Json value) {
  if (is_null()) value_ = JsonObject();
  JsonObject* object = AsObject();
  EW_CHECK(object != nullptr);
  for (auto& [name, old] : *object) {
    if (name == key) {
      old = std::move(value);
      return *this;
    }
  }
  object->emplace_back(std::string(key), std::move(value));
  return *this;
}

Json& Json::Append(Json value) {
  if (is_null()) value_ = JsonArray();
  JsonArray* array = AsArray();
  EW_CHECK(array != nullptr);
  array->push_back(std::move(value));
  return *this;
}

std::string Json::Dump(int indent) const {
  std::string text;
  Dumper(indent, &text).Value(*this, 0);
  return text;
}

const char* Json::TypeName() const {
  constexpr const char* kNames[] = {"null",   "boolean", "number", "number",
                                    "number", "string",  "array",  "object"};
  return kNames[value_.index()];
}

Result<Json> ParseJson(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return MakeError(Code::kBadData, "JSON text of %zu bytes; at most %llu are read here",
                     text.size(), static_cast<unsigned long long>(limits.max_bytes));
  }
  Builder builder(limits);
  try {
    nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  } catch (const std::bad_alloc&) {
    return MakeError(Code::kOutOfMemory, "not enough memory for a JSON text of %zu bytes",
                     text.size());
  } catch (const std::exception& error) {
    return MakeError(Code::kBadData, "invalid JSON: %s", error.what());
  }
  return std::move(builder).Take();
}

}  // namespace edgewise
