#include "formats/metadata.h"

#include <charconv>
#include <concepts>
#include <limits>
#include <type_traits>

#include "base/strings.h"

namespace edgewise {
namespace {

constexpr size_t kDescribedTextBytes = 80;

template <class T>
constexpr bool kIsInteger = std::integral<T> && !std::is_same_v<T, bool>;

Error Absent(std::string_view key) {
  return MakeError(Code::kNotFound, "the metadata key %s is missing", Quote(key).c_str());
}

// Names the type as a person would: "array of string".
std::string TypeText(const MetaValue& value) {
  if (const auto* array = std::get_if<MetaArray>(&value)) {
    return std::string("array of ") + MetaTypeName(array->element);
  }
  return MetaTypeName(TypeOf(value));
}

Error WrongType(std::string_view key, const MetaValue& value, const char* wanted) {
  return MakeError(Code::kBadData, "the metadata key %s holds %s (%s), not %s", Quote(key).c_str(),
                   Describe(value).c_str(), TypeText(value).c_str(), wanted);
}

template <class T>
std::string NumberText(T value) {
  char buffer[40];
  return std::string(buffer, std::to_chars(buffer, buffer + sizeof(buffer), value).ptr);
}

template <class T>
std::string ItemText(const T& item, MetaType type) {
  if constexpr (std::is_same_v<T, std::string>) {
    return Quote(item, kDescribedTextBytes);
  } else if (type == MetaType::kBool) {
    return item != T{} ? "true" : "false";
  } else {
    return NumberText(item);
  }
}

std::string ArrayText(const MetaArray& array, size_t max_items) {
  std::string text = "[";
  std::visit(
      [&](const auto& values) {
        for (size_t i = 0; i < values.size() && i < max_items; ++i) {
          if (i > 0) text += ", ";
          text += ItemText(values[i], array.element);
        }
        if (values.size() <= max_items) {
          text += "]";
        } else {
          text += Format("%s...] (%zu values)", max_items > 0 ? ", " : "", values.size());
        }
      },
      array.values);
  return text;
}

// The value of `key` read by `get`, or `fallback` where the key is absent.
template <class T, class Get>
Result<T> GetOr(const Metadata& metadata, std::string_view key, T fallback, Get get) {
  if (metadata.Find(key) == nullptr) return fallback;
  return get();
}

template <class T>
const std::vector<T>* FindArray(const Metadata& metadata, std::string_view key) {
  const MetaValue* value = metadata.Find(key);
  const auto* array = value ? std::get_if<MetaArray>(value) : nullptr;
  return array ? std::get_if<std::vector<T>>(&array->values) : nullptr;
}

}  // namespace

size_t MetaArray::size() const {
  return std::visit([](const auto& v) { return v.size(); }, values);
}

void Metadata::Set(std::string_view key, MetaValue value) {
  const auto [entry, added] = index_.emplace(key, pairs_.size());
  if (added) {
    pairs_.emplace_back(key, std::move(value));
  } else {
    pairs_[entry->second].second = std::move(value);
  }
}

void Metadata::Erase(std::string_view key) {
  const auto entry = index_.find(key);
  if (entry == index_.end()) return;
  const size_t removed = entry->second;
  index_.erase(entry);
  pairs_.erase(pairs_.begin() + static_cast<std::ptrdiff_t>(removed));
  for (auto& [name, position] : index_) {
    if (position > removed) --position;
  }
}

const MetaValue* Metadata::Find(std::string_view key) const {
  const auto entry = index_.find(key);
  return entry == index_.end() ? nullptr : &pairs_[entry->second].second;
}

Result<std::string> Metadata::GetString(std::string_view key) const {
  const MetaValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  if (const auto* text = std::get_if<std::string>(value)) return *text;
  return WrongType(key, *value, "a string");
}

Result<uint64_t> Metadata::GetUint(std::string_view key) const {
  const MetaValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  return std::visit(
      [&](const auto& v) -> Result<uint64_t> {
        if constexpr (kIsInteger<std::decay_t<decltype(v)>>) {
          if (std::in_range<uint64_t>(v)) return static_cast<uint64_t>(v);
        }
        return WrongType(key, *value, "a non-negative integer");
      },
      *value);
}

Result<double> Metadata::GetDouble(std::string_view key) const {
  const MetaValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  return std::visit(
      [&](const auto& v) -> Result<double> {
        using T = std::decay_t<decltype(v)>;
        if constexpr (kIsInteger<T> || std::floating_point<T>) {
          return static_cast<double>(v);
        } else {
          return WrongType(key, *value, "a number");
        }
      },
      *value);
}

Result<bool> Metadata::GetBool(std::string_view key) const {
  const MetaValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  if (const auto* flag = std::get_if<bool>(value)) return *flag;
  return WrongType(key, *value, "a bool");
}

Result<std::string> Metadata::GetString(std::string_view key, std::string fallback) const {
  return GetOr(*this, key, std::move(fallback), [&] { return GetString(key); });
}

Result<uint64_t> Metadata::GetUint(std::string_view key, uint64_t fallback) const {
  return GetOr(*this, key, fallback, [&] { return GetUint(key); });
}

Result<double> Metadata::GetDouble(std::string_view key, double fallback) const {
  return GetOr(*this, key, fallback, [&] { return GetDouble(key); });
}

Result<bool> Metadata::GetBool(std::string_view key, bool fallback) const {
  return GetOr(*this, key, fallback, [&] { return GetBool(key); });
}

const std::vector<std::string>* Metadata::FindStrings(std::string_view key) const {
  return FindArray<std::string>(*this, key);
}

const std::vector<float>* Metadata::FindFloats(std::string_view key) const {
  return FindArray<float>(*this, key);
}

Result<std::vector<int64_t>> Metadata::GetInts(std::string_view key) const {
  const MetaValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  const auto* array = std::get_if<MetaArray>(value);
  if (array == nullptr) return WrongType(key, *value, "an array of integers");
  return std::visit(
      [&](const auto& values) -> Result<std::vector<int64_t>> {
        using T = typename std::decay_t<decltype(values)>::value_type;
        if constexpr (kIsInteger<T>) {
          for (size_t i = 0; i < values.size(); ++i) {
            if (std::in_range<int64_t>(values[i])) continue;
            return MakeError(Code::kBadData, "the metadata key %s: value %zu, %s, is out of range",
                             Quote(key).c_str(), i, NumberText(values[i]).c_str());
          }
          return std::vector<int64_t>(values.begin(), values.end());
        } else {
          return WrongType(key, *value, "an array of integers");
        }
      },
      array->values);
}

MetaType TypeOf(const MetaValue& value) { return static_cast<MetaType>(value.index()); }

const char* MetaTypeName(MetaType type) {
  constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                    "bool", "string", "array", "u64", "i64", "f64"};
  const auto number = static_cast<size_t>(type);
  return number < std::size(kNames) ? kNames[number] : "unknown";
}

std::string Describe(const MetaValue& value, size_t max_items) {
  if (const auto* array = std::get_if<MetaArray>(&value)) return ArrayText(*array, max_items);
  return std::visit(
      [&](const auto& v) -> std::string {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, MetaArray>) {
          return ArrayText(v, max_items);
        } else if constexpr (std::is_same_v<T, bool>) {
          return v ? "true" : "false";
        } else {
          return ItemText(v, TypeOf(value));
        }
      },
      value);
}

}  // namespace edgewise
