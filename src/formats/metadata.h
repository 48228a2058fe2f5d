// Metadata: the typed key/value pairs of GGUF, kept in order. Every format's extra facts are
// expressed in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace edgewise {

// GGUF v3 value types, numbered as in the file.
enum class MetaType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// One value with its exact file type. std::vector<bool> is avoided: bool arrays are vector<uint8_t>
// tagged kBool by MetaArray.
struct MetaArray {
  MetaType element = MetaType::kU32;  // never kArray: nested arrays are refused
  std::variant<std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>,
               std::vector<int16_t>, std::vector<uint32_t>, std::vector<int32_t>,
               std::vector<float>, std::vector<std::string>, std::vector<uint64_t>,
               std::vector<int64_t>, std::vector<double>>
      values;  // kBool uses vector<uint8_t> of 0 and 1
  size_t size() const;
  bool operator==(const MetaArray& other) const = default;

  MetaArray() = default;
  explicit MetaArray(std::vector<std::string> v)
      : element(MetaType::kString), values(std::move(v)) {}
  explicit MetaArray(std::vector<float> v) : element(MetaType::kF32), values(std::move(v)) {}
  explicit MetaArray(std::vector<int32_t> v) : element(MetaType::kI32), values(std::move(v)) {}
  explicit MetaArray(std::vector<uint32_t> v) : element(MetaType::kU32), values(std::move(v)) {}
  explicit MetaArray(std::vector<uint8_t> v) : element(MetaType::kU8), values(std::move(v)) {}
};
using MetaValue =
    std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool, std::string,
                 MetaArray, uint64_t, int64_t, double>;  // index = MetaType

// Ordered pairs, found by key in constant time. Copyable.
class Metadata {
 public:
  // Adds or replaces. The C++ type decides the file type: Set(k, uint32_t{5}), Set(k,
  // std::string("x")).
  void Set(std::string_view key, MetaValue value);
  void Erase(std::string_view key);
  const MetaValue* Find(std::string_view key) const;
  std::span<const std::pair<std::string, MetaValue>> all() const { return pairs_; }

  // Typed reads that accept any integer (or float) type that holds the value. Errors: kNotFound
  // (absent), kBadData (another type, out of range); messages name the key.
  Result<std::string> GetString(std::string_view key) const;
  Result<uint64_t> GetUint(std::string_view key) const;
  Result<double> GetDouble(std::string_view key) const;
  Result<bool> GetBool(std::string_view key) const;

  // The same, but an absent key gives `fallback`; a key of the wrong type is still an error.
  Result<std::string> GetString(std::string_view key, std::string fallback) const;
  Result<uint64_t> GetUint(std::string_view key, uint64_t fallback) const;
  Result<double> GetDouble(std::string_view key, double fallback) const;
  Result<bool> GetBool(std::string_view key, bool fallback) const;

  // Returns the array's values, or null when the key is absent or holds another type of array.
  const std::vector<std::string>* FindStrings(std::string_view key) const;
  const std::vector<float>* FindFloats(std::string_view key) const;
  // Copies an array of any integer type, or of bools as 0 and 1. Errors: kNotFound, kBadData.
  Result<std::vector<int64_t>> GetInts(std::string_view key) const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
  };
  std::vector<std::pair<std::string, MetaValue>> pairs_;
  std::unordered_map<std::string, size_t, Hash, std::equal_to<>> index_;
};

MetaType TypeOf(const MetaValue& value);
// "u32", "string", "array": as printed by `inspect`.
const char* MetaTypeName(MetaType type);
// Returns the value as short text for people: long strings and arrays are cut with their full size
// named.
std::string Describe(const MetaValue& value, size_t max_items = 6);

}  // namespace edgewise
