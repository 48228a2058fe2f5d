// Result<T>: a value or an Error. The part of std::expected that we need, for C++20.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"

namespace edgewise {

// Says what the caller can do about it, not where it happened; the message says where.
enum class Code : uint8_t {
  kInvalidArgument,  // the caller asked for something wrong
  kNotFound,         // a file, tensor, metadata key or name is missing or cannot be opened
  kBadData,          // the input file or request is malformed
  kUnsupported,      // well-formed, but not implemented
  kIo,               // the operating system failed a read or a write
  kOutOfMemory,
  kCancelled,
};

struct Error {
  Code code;
  std::string message;

  // Returns the error with `where` put before its message: "model.gguf: bad magic".
  [[nodiscard]] Error In(std::string_view where) && {
    message.insert(0, std::string(where) + ": ");
    return std::move(*this);
  }
};

// Holds a T or an Error. Reading the absent one is a bug in our code and aborts.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value)  // NOLINT(google-explicit-constructor)
      : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error)  // NOLINT(google-explicit-constructor)
      : state_(std::in_place_index<1>, std::move(error)) {}

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  T& operator*() & { return Get(); }
  const T& operator*() const& { return const_cast<Result*>(this)->Get(); }
  T&& operator*() && { return std::move(Get()); }
  T* operator->() { return &Get(); }
  const T* operator->() const { return &const_cast<Result*>(this)->Get(); }
  T value_or(T fallback) && { return has_value() ? std::move(Get()) : std::move(fallback); }

  const Error& error() const& {
    EW_CHECK(!has_value());
    return *std::get_if<1>(&state_);
  }
  Error&& error() && {
    EW_CHECK(!has_value());
    return std::move(*std::get_if<1>(&state_));
  }

  // Returns this result with `where` put before the error's message, if there is one.
  Result In(std::string_view where) && {
    if (has_value()) return std::move(*this);
    return std::move(*std::get_if<1>(&state_)).In(where);
  }

 private:
  T& Get() {
    EW_CHECK(has_value());
    return *std::get_if<0>(&state_);
  }
  std::variant<T, Error> state_;
};

struct Ok {};
using Status = Result<Ok>;

}  // namespace edgewise

// EW_TRY(auto file, Open(path)) declares `file` or returns the error to our caller.
// EW_TRY(Check(file)) does the same for a Status, declaring nothing.
#define EW_TRY(...) EW_TRY_PICK_(__VA_ARGS__, EW_TRY_VALUE_, EW_TRY_STATUS_, )(__VA_ARGS__)
#define EW_TRY_PICK_(a, b, name, ...) name
#define EW_TRY_STATUS_(expr)                             \
  do {                                                   \
    auto ew_status = (expr);                             \
    if (!ew_status) return std::move(ew_status).error(); \
  } while (false)
#define EW_TRY_VALUE_(decl, expr) EW_TRY_IMPL_(EW_CAT_(ew_result_, __LINE__), decl, expr)
#define EW_TRY_IMPL_(tmp, decl, expr)      \
  auto tmp = (expr);                       \
  if (!tmp) return std::move(tmp).error(); \
  decl = *std::move(tmp)
#define EW_CAT_(a, b) EW_CAT_IMPL_(a, b)
#define EW_CAT_IMPL_(a, b) a##b
