// JSON values: our own small type, so that only json.cc pays for including nlohmann/json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace edgewise {

class Json;
using JsonArray = std::vector<Json>;
using JsonObject =
    std::vector<std::pair<std::string, Json>>;  // in order of appearance, keys unique

// A JSON value. Copyable; not thread-safe while modified.
class Json {
 public:
  Json() = default;  // null
  Json(std::nullptr_t) {}
  Json(bool value) : value_(value) {}
  Json(int value) : value_(static_cast<int64_t>(value)) {}
  Json(unsigned value) : value_(static_cast<int64_t>(value)) {}
  Json(int64_t value) : value_(value) {}
  Json(uint64_t value) : value_(value) {}
  Json(double value) : value_(value) {}
  Json(float value) : value_(static_cast<double>(value)) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(JsonArray value) : value_(std::move(value)) {}
  Json(JsonObject value) : value_(std::move(value)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_integer() const;
  bool is_number() const { return is_integer() || std::holds_alternative<double>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<JsonArray>(value_); }
  bool is_object() const { return std::holds_alternative<JsonObject>(value_); }

  // Accessors return null / nullopt when the value has another type (or does not fit).
  std::optional<bool> AsBool() const;
  std::optional<int64_t> AsInt() const;
  std::optional<uint64_t> AsUint() const;
  std::optional<double> AsDouble() const;
  const std::string* AsString() const { return std::get_if<std::string>(&value_); }
  const JsonArray* AsArray() const { return std::get_if<JsonArray>(&value_); }
  const JsonObject* AsObject() const { return std::get_if<JsonObject>(&value_); }
  JsonArray* AsArray() { return std::get_if<JsonArray>(&value_); }
  JsonObject* AsObject() { return std::get_if<JsonObject>(&value_); }

  // Returns the member, or null when this is no object or lacks the key. Linear in the members:
  // build a map for many look-ups.
  const Json* Find(std::string_view key) const;

  // Sets a member of an object (a null value becomes an object first); returns *this for chaining.
  Json& Set(std::string_view key, Json value);
  // Appends to an array (a null value becomes an array first).
  Json& Append(Json value);

  // Returns the text; indent < 0 means one line. Invalid UTF-8 in strings becomes U+FFFD, NaN and
  // infinity null; doubles are written with the fewest digits that read back equal.
  std::string Dump(int indent = -1) const;

  // A short name of the type for messages: "object", "string", ...
  const char* TypeName() const;

 private:
  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, JsonArray, JsonObject>
      value_;
};

struct JsonLimits {
  uint64_t max_bytes = 256ull << 20;
  int max_depth = 64;
};

// Parses one JSON text. Errors: kBadData (syntax with its byte, duplicate key, too deep, too large,
// invalid UTF-8).
Result<Json> ParseJson(std::string_view text, const JsonLimits& limits = {});

}  // namespace edgewise
