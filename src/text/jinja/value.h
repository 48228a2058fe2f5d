// The values a template computes with. Containers belong to the Runtime of one rendering and are
// shared by reference, as in Python; a cycle among them is therefore harmless.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/text.h"

namespace edgewise::jinja {

struct List;
struct Dict;
struct Namespace;
struct Callable;
struct Loop;

class Value {
 public:
  Value() = default;  // undefined
  static Value None() { return Value(Storage(NoneTag{})); }
  static Value Bool(bool value) { return Value(Storage(value)); }
  static Value Int(int64_t value) { return Value(Storage(value)); }
  static Value Float(double value) { return Value(Storage(value)); }
  static Value String(Text text) {
    return Value(Storage(std::make_shared<const Text>(std::move(text))));
  }
  static Value String(std::string_view text) { return String(Text(text)); }
  static Value Of(List* list) { return Value(Storage(list)); }
  static Value Of(Dict* dict) { return Value(Storage(dict)); }
  static Value Of(Namespace* names) { return Value(Storage(names)); }
  static Value Of(Callable* callable) { return Value(Storage(callable)); }
  static Value Of(Loop* loop) { return Value(Storage(loop)); }

  bool is_undefined() const { return std::holds_alternative<std::monostate>(storage_); }
  bool is_none() const { return std::holds_alternative<NoneTag>(storage_); }
  bool is_bool() const { return std::holds_alternative<bool>(storage_); }
  bool is_int() const { return std::holds_alternative<int64_t>(storage_); }
  bool is_float() const { return std::holds_alternative<double>(storage_); }
  bool is_number() const {
    return is_int() || is_float() || is_bool();
  }  // as in Python, a bool is a number

  // Null unless the value is of that type.
  const Text* AsText() const {
    const auto* text = std::get_if<std::shared_ptr<const Text>>(&storage_);
    return text ? text->get() : nullptr;
  }
  List* AsList() const { return Pointer<List>(); }
  Dict* AsDict() const { return Pointer<Dict>(); }
  Namespace* AsNamespace() const { return Pointer<Namespace>(); }
  Callable* AsCallable() const { return Pointer<Callable>(); }
  Loop* AsLoop() const { return Pointer<Loop>(); }

  // The value must be a bool or an int.
  int64_t Integer() const {
    return is_bool() ? std::get<bool>(storage_) : std::get<int64_t>(storage_);
  }
  // The value must be a number.
  double Number() const {
    return is_float() ? std::get<double>(storage_) : static_cast<double>(Integer());
  }

  bool Truthy() const;
  // Python's name of the type, for messages.
  const char* TypeName() const;

 private:
  struct NoneTag {};
  using Storage =
      std::variant<std::monostate, NoneTag, bool, int64_t, double, std::shared_ptr<const Text>,
                   List*, Dict*, Namespace*, Callable*, Loop*>;
  explicit Value(Storage storage) : storage_(std::move(storage)) {}
  template <class T>
  T* Pointer() const {
    auto* const* pointer = std::get_if<T*>(&storage_);
    return pointer ? *pointer : nullptr;
  }
  Storage storage_;
};

struct List {
  std::vector<Value> items;
  bool tuple = false;
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in order of insertion, keys unique
};

struct Namespace {
  Dict attributes;
};

// The variable `loop` of one loop.
struct Loop {
  std::vector<Value> items;
  size_t index = 0;
  std::vector<Value> last_changed;  // the arguments of the previous loop.changed(...)
  bool changed_called = false;
};

}  // namespace edgewise::jinja
