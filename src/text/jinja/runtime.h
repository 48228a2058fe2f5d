// What one rendering owns: its containers, its budget and its clock. Not thread-safe.
#pragma once

#include <cstdint>
#include <ctime>
#include <deque>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/jinja/limits.h"
#include "text/jinja/value.h"

namespace edgewise::jinja {

struct MacroDefinition;
struct Scope;
class Runtime;

// The evaluated arguments of one call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keywords;
};

// A filter, a method or a global: `self` is what stands left of the bar or the dot.
using Builtin = Result<Value> (*)(Runtime& runtime, const Value& self, const Arguments& arguments);

struct Callable {
  Builtin builtin = nullptr;
  Value self;
  const MacroDefinition* macro = nullptr;  // else this macro, closed over `scope`
  Scope* scope = nullptr;
  Value caller;  // given to the macro's body by a call block
};

// The variables of one block; those of the blocks around it follow through `parent`.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string_view, Value>> variables;

  Value* Find(std::string_view name);
  void Set(std::string_view name, Value value);
};

class Runtime {
 public:
  Runtime(const JinjaLimits& limits, const std::tm& now) : limits_(limits), now_(now) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Takes from the step budget. Errors: kOutOfMemory when it is spent.
  Status Charge(uint64_t steps);
  Status ChargeBytes(uint64_t bytes) { return Charge(1 + bytes / 256); }

  // Each charges for what it makes. Errors: kOutOfMemory.
  Result<Value> MakeText(Text text);
  Result<Value> MakeList(std::vector<Value> items, bool tuple = false);
  Result<Dict*> MakeDict();
  Result<Namespace*> MakeNamespace();
  Result<Callable*> MakeCallable();
  Result<Loop*> MakeLoop();
  Result<Scope*> MakeScope(Scope* parent);

  // Finds an entry; null when absent.
  Result<Value*> Find(Dict* dict, const Value& key);
  Result<Value*> Find(Dict* dict, std::string_view key);
  // Sets an entry. Errors: kBadData when the key cannot be one (a list, a dict, ...).
  Status Set(Dict* dict, const Value& key, Value value);

  const JinjaLimits& limits() const { return limits_; }
  const std::tm& now() const { return now_; }

 private:
  JinjaLimits limits_;
  std::tm now_;
  uint64_t steps_ = 0;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Namespace> namespaces_;
  std::deque<Callable> callables_;
  std::deque<Loop> loops_;
  std::deque<Scope> scopes_;
};

// Turns JSON into a value whose strings (keys too) have the given origin. Errors: kOutOfMemory (a
// limit).
Result<Value> FromJson(Runtime& runtime, const Json& json, bool trusted);

// Python's ==. Errors: kOutOfMemory.
Result<bool> Equal(Runtime& runtime, const Value& a, const Value& b);
// Python's <. Errors: kBadData when the types have no order.
Result<bool> Less(Runtime& runtime, const Value& a, const Value& b);
// Python's `item in container`.
Result<bool> Contains(Runtime& runtime, const Value& container, const Value& item);

// Python's str(value); undefined gives nothing.
Result<Text> ToText(Runtime& runtime, const Value& value);
// Returns the elements: of a list, the characters of a string, the keys of a dict, none of
// undefined.
Result<std::vector<Value>> Elements(Runtime& runtime, const Value& value);
// Returns the shortest text that reads back as the same double, in Python's spelling.
std::string FormatFloat(double value);

struct JsonStyle {
  int indent = -1;  // below 0: one line
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

// json.dumps. Errors: kBadData (a value that JSON lacks).
Result<Text> ToJson(Runtime& runtime, const Value& value, const JsonStyle& style);

// Returns the arguments in the order of `names`, null where not given.
// Errors: kBadData naming `function` (too many, unknown or doubled ones, fewer than `required`).
Result<std::vector<const Value*>> Bind(const Arguments& arguments, std::string_view function,
                                       std::initializer_list<std::string_view> names,
                                       size_t required = 0);
// Returns the int (or bool) of an argument, `fallback` when it is null or None. Errors: kBadData.
Result<int64_t> IntegerArgument(const Value* value, std::string_view function, int64_t fallback);
// Returns the text of an argument. Errors: kBadData.
Result<const Text*> TextArgument(const Value* value, std::string_view function);

}  // namespace edgewise::jinja
