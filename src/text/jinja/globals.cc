#include "text/jinja/globals.h"

#include "base/strings.h"

namespace edgewise::jinja {
namespace {

Result<Value> RangeFunction(Runtime& runtime, const Value&, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "range", {"start", "stop", "step"}, 1));
  EW_TRY(int64_t start, IntegerArgument(args[0], "range", 0));
  EW_TRY(int64_t stop, IntegerArgument(args[1], "range", 0));
  EW_TRY(const int64_t step, IntegerArgument(args[2], "range", 1));
  if (!args[1]) std::swap(start, stop);
  if (step == 0) return MakeError(Code::kBadData, "range() with step 0");
  std::vector<Value> items;
  for (int64_t at = start; step > 0 ? at < stop : at > stop;) {
    EW_TRY(runtime.Charge(1));
    items.push_back(Value::Int(at));
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return runtime.MakeList(std::move(items));
}

// dict(mapping or pairs, name=value, ...): also the start of a namespace.
Status Fill(Runtime& runtime, std::string_view name, const Arguments& arguments, Dict* dict) {
  if (arguments.positional.size() > 1) {
    return MakeError(Code::kBadData, "%s() takes at most one mapping", std::string(name).c_str());
  }
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    EW_TRY(const std::vector<Value> elements, Elements(runtime, source));
    for (const Value& element : elements) {
      if (Dict* other = source.AsDict()) {
        EW_TRY(const Value* value, runtime.Find(other, element));
        EW_TRY(runtime.Set(dict, element, *value));
        continue;
      }
      EW_TRY(const std::vector<Value> pair, Elements(runtime, element));
      if (pair.size() != 2)
        return MakeError(Code::kBadData, "%s() needs pairs", std::string(name).c_str());
      EW_TRY(runtime.Set(dict, pair[0], pair[1]));
    }
  }
  for (const auto& [key, value] : arguments.keywords)
    EW_TRY(runtime.Set(dict, Value::String(key), value));
  return Ok{};
}

Result<Value> DictFunction(Runtime& runtime, const Value&, const Arguments& arguments) {
  EW_TRY(auto* dict, runtime.MakeDict());
  EW_TRY(Fill(runtime, "dict", arguments, dict));
  return Value::Of(dict);
}

Result<Value> NamespaceFunction(Runtime& runtime, const Value&, const Arguments& arguments) {
  EW_TRY(auto* names, runtime.MakeNamespace());
  EW_TRY(Fill(runtime, "namespace", arguments, &names->attributes));
  return Value::Of(names);
}

Result<Value> RaiseFunction(Runtime& runtime, const Value&, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "raise_exception", {"message"}, 1));
  EW_TRY(const Text message, ToText(runtime, *args[0]));
  return MakeError(Code::kInvalidArgument, "the chat template says: %s",
                   std::string(message.bytes(), 0, 1000).c_str());
}

Result<Value> StrftimeFunction(Runtime& runtime, const Value&, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "strftime_now", {"format"}, 1));
  EW_TRY(const Text* format, TextArgument(args[0], "strftime_now"));
  if (format->empty()) return *args[0];
  char buffer[4096];
  const size_t length =
      std::strftime(buffer, sizeof(buffer), format->bytes().c_str(), &runtime.now());
  if (length == 0)
    return MakeError(Code::kBadData, "strftime_now(): a format that gives no text or too much");
  return runtime.MakeText(Text(std::string_view(buffer, length), format->Trusted()));
}

}  // namespace

Status AddGlobals(Runtime& runtime, Scope* scope) {
  constexpr std::pair<std::string_view, Builtin> kGlobals[] = {{"range", RangeFunction},
                                                               {"dict", DictFunction},
                                                               {"namespace", NamespaceFunction},
                                                               {"raise_exception", RaiseFunction},
                                                               {"strftime_now", StrftimeFunction}};
  for (const auto& [name, function] : kGlobals) {
    EW_TRY(auto* callable, runtime.MakeCallable());
    callable->builtin = function;
    scope->Set(name, Value::Of(callable));
  }
  return Ok{};
}

}  // namespace edgewise::jinja
