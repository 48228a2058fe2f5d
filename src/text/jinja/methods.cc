#include "text/jinja/methods.h"

#include <algorithm>
#include <array>

#include "base/strings.h"
#include "text/jinja/characters.h"
#include "text/jinja/strings.h"

namespace edgewise::jinja {
namespace {

template <Side side>
Result<Value> StripMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "strip", {"chars"}));
  const Text* chars = nullptr;
  if (args[0] && !args[0]->is_none()) {
    EW_TRY(chars, TextArgument(args[0], "strip"));
  }
  EW_TRY(runtime.ChargeBytes(self.AsText()->size()));
  return runtime.MakeText(Strip(*self.AsText(), side, chars));
}

template <Text (*change)(const Text&)>
Result<Value> ChangeMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "a case method", {}));
  EW_TRY(runtime.ChargeBytes(self.AsText()->size() * 8));
  return runtime.MakeText(change(*self.AsText()));
}

Text TitleWords(const Text& text) {
  return Title(text, [](char32_t code) { return UpperOf(code) == code && LowerOf(code) == code; });
}

// startswith and endswith take one string or a tuple of them.
template <bool at_start>
Result<Value> AffixMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const char* name = at_start ? "startswith" : "endswith";
  EW_TRY(const auto args, Bind(arguments, name, {"affix"}, 1));
  const std::string_view text = self.AsText()->bytes();
  std::vector<Value> affixes = {*args[0]};
  if (const List* list = args[0]->AsList()) affixes = list->items;
  EW_TRY(runtime.Charge(affixes.size()));
  for (const Value& affix : affixes) {
    EW_TRY(const Text* part, TextArgument(&affix, name));
    EW_TRY(runtime.ChargeBytes(part->size()));
    if (at_start ? text.starts_with(part->bytes()) : text.ends_with(part->bytes()))
      return Value::Bool(true);
  }
  return Value::Bool(false);
}

template <bool prefix>
Result<Value> RemoveAffixMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "removeprefix/removesuffix", {"affix"}, 1));
  EW_TRY(const Text* part, TextArgument(args[0], "removeprefix/removesuffix"));
  const Text& text = *self.AsText();
  const std::string_view bytes = text.bytes();
  if (prefix && bytes.starts_with(part->bytes()))
    return runtime.MakeText(text.Slice(part->size(), text.size()));
  if (!prefix && bytes.ends_with(part->bytes()))
    return runtime.MakeText(text.Slice(0, text.size() - part->size()));
  return self;
}

Result<Value> ListOfTexts(Runtime& runtime, std::vector<Text> texts) {
  std::vector<Value> items;
  for (Text& text : texts) {
    EW_TRY(Value item, runtime.MakeText(std::move(text)));
    items.push_back(std::move(item));
  }
  return runtime.MakeList(std::move(items));
}

template <bool from_right>
Result<Value> SplitMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "split", {"sep", "maxsplit"}));
  const Text* separator = nullptr;
  if (args[0] && !args[0]->is_none()) {
    EW_TRY(separator, TextArgument(args[0], "split"));
  }
  EW_TRY(const int64_t limit, IntegerArgument(args[1], "split", -1));
  EW_TRY(std::vector<Text> pieces,
         SplitText(runtime, *self.AsText(), separator, limit, from_right));
  return ListOfTexts(runtime, std::move(pieces));
}

Result<Value> SplitLinesMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "splitlines", {}));
  const std::string& bytes = self.AsText()->bytes();
  EW_TRY(runtime.Charge(bytes.size() / 256 +
                        static_cast<uint64_t>(std::count(bytes.begin(), bytes.end(), '\n'))));
  EW_TRY(runtime.Charge(static_cast<uint64_t>(std::count(bytes.begin(), bytes.end(), '\r'))));
  return ListOfTexts(runtime, SplitLines(*self.AsText()));
}

Result<Value> ReplaceMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "replace", {"old", "new", "count"}, 2));
  EW_TRY(const Text* from, TextArgument(args[0], "replace"));
  EW_TRY(const Text* to, TextArgument(args[1], "replace"));
  EW_TRY(const int64_t count, IntegerArgument(args[2], "replace", -1));
  EW_TRY(Text result, Replace(runtime, *self.AsText(), *from, *to, count));
  return runtime.MakeText(std::move(result));
}

Result<Value> JoinMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "join", {"iterable"}, 1));
  EW_TRY(const std::vector<Value> items, Elements(runtime, *args[0]));
  for (const Value& item : items) {
    if (!item.AsText()) return MakeError(Code::kBadData, "join() of a '%s'", item.TypeName());
  }
  EW_TRY(Text result, JoinItems(runtime, items, *self.AsText()));
  return runtime.MakeText(std::move(result));
}

// find, rfind (-1 when absent) and index (an error when absent), in characters.
enum class Search : uint8_t { kFind, kFindLast, kIndex };
template <Search search>
Result<Value> FindMethodOf(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "find", {"sub"}, 1));
  EW_TRY(const Text* part, TextArgument(args[0], "find"));
  const std::string& bytes = self.AsText()->bytes();
  EW_TRY(runtime.ChargeBytes(bytes.size() + part->size()));
  size_t found = FindText(bytes, part->bytes(), 0);
  if (search == Search::kFindLast && found != std::string::npos) {
    for (size_t next = found; next != std::string::npos;
         next = FindText(bytes, part->bytes(), next + 1)) {
      EW_TRY(runtime.Charge(1));
      found = next;
    }
  }
  if (found == std::string::npos) {
    if (search == Search::kIndex) return MakeError(Code::kBadData, "index(): the part is absent");
    return Value::Int(-1);
  }
  return Value::Int(
      static_cast<int64_t>(CountCharacters(std::string_view(bytes).substr(0, found))));
}

Result<Value> CountTextMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "count", {"sub"}, 1));
  EW_TRY(const Text* part, TextArgument(args[0], "count"));
  if (part->empty())
    return Value::Int(static_cast<int64_t>(CountCharacters(self.AsText()->bytes())) + 1);
  EW_TRY(const std::vector<Text> pieces, SplitText(runtime, *self.AsText(), part, -1, false));
  return Value::Int(static_cast<int64_t>(pieces.size()) - 1);
}

// isdigit, isspace: true for a non-empty text of such characters only.
template <bool (*belongs)(char32_t)>
Result<Value> AllMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "a class method", {}));
  const std::string& bytes = self.AsText()->bytes();
  EW_TRY(runtime.ChargeBytes(bytes.size()));
  for (size_t at = 0; at < bytes.size();) {
    const Character character = DecodeAt(bytes, at);
    if (!belongs(character.code)) return Value::Bool(false);
    at += character.length;
  }
  return Value::Bool(!bytes.empty());
}

bool IsAsciiDigit(char32_t code) { return code >= '0' && code <= '9'; }

Result<Value> GetMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "get", {"key", "default"}, 1));
  EW_TRY(const Value* found, runtime.Find(self.AsDict(), *args[0]));
  return found ? *found : args[1] ? *args[1] : Value::None();
}

Result<Value> ItemsMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "items", {}));
  std::vector<Value> items;
  for (const auto& [key, value] : self.AsDict()->entries) {
    EW_TRY(Value pair, runtime.MakeList({key, value}, true));
    items.push_back(std::move(pair));
  }
  return runtime.MakeList(std::move(items));
}

Result<Value> KeysMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "keys", {}));
  EW_TRY(std::vector<Value> keys, Elements(runtime, self));
  return runtime.MakeList(std::move(keys));
}

Result<Value> ValuesMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "values", {}));
  EW_TRY(runtime.Charge(self.AsDict()->entries.size()));
  std::vector<Value> values;
  for (const auto& entry : self.AsDict()->entries) values.push_back(entry.second);
  return runtime.MakeList(std::move(values));
}

// Sets every entry of a mapping and every keyword.
Result<Value> UpdateMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  if (arguments.positional.size() > 1)
    return MakeError(Code::kBadData, "update() takes one mapping");
  if (!arguments.positional.empty()) {
    const Dict* other = arguments.positional[0].AsDict();
    if (!other)
      return MakeError(Code::kBadData, "update() with a '%s'", arguments.positional[0].TypeName());
    const auto entries = other->entries;
    for (const auto& [key, value] : entries) EW_TRY(runtime.Set(self.AsDict(), key, value));
  }
  for (const auto& [name, value] : arguments.keywords) {
    EW_TRY(runtime.Set(self.AsDict(), Value::String(name), value));
  }
  return Value::None();
}

Status CheckMutable(const Value& self) {
  if (!self.AsList()->tuple) return Ok{};
  return MakeError(Code::kBadData, "a tuple cannot change");
}

Result<Value> AppendMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "append", {"item"}, 1));
  EW_TRY(CheckMutable(self));
  EW_TRY(runtime.Charge(1));
  self.AsList()->items.push_back(*args[0]);
  return Value::None();
}

Result<Value> ExtendMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "extend", {"iterable"}, 1));
  EW_TRY(CheckMutable(self));
  EW_TRY(const std::vector<Value> items, Elements(runtime, *args[0]));
  self.AsList()->items.insert(self.AsList()->items.end(), items.begin(), items.end());
  return Value::None();
}

Result<Value> PopMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "pop", {"index"}));
  EW_TRY(CheckMutable(self));
  EW_TRY(int64_t at, IntegerArgument(args[0], "pop", -1));
  auto& items = self.AsList()->items;
  EW_TRY(runtime.Charge(1 + items.size() / 16));
  if (at < 0) at += static_cast<int64_t>(items.size());
  if (at < 0 || at >= static_cast<int64_t>(items.size()))
    return MakeError(Code::kBadData, "pop(): no such element");
  Value item = items[static_cast<size_t>(at)];
  items.erase(items.begin() + at);
  return item;
}

Result<Value> IndexMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "index", {"item"}, 1));
  const auto& items = self.AsList()->items;
  EW_TRY(runtime.Charge(1 + items.size() / 16));
  for (size_t i = 0; i < items.size(); ++i) {
    EW_TRY(const bool same, Equal(runtime, items[i], *args[0]));
    if (same) return Value::Int(static_cast<int64_t>(i));
  }
  return MakeError(Code::kBadData, "index(): no such element");
}

Result<Value> CycleMethod(Runtime&, const Value& self, const Arguments& arguments) {
  if (arguments.positional.empty() || !arguments.keywords.empty()) {
    return MakeError(Code::kBadData, "loop.cycle() needs at least one value");
  }
  return arguments.positional[self.AsLoop()->index % arguments.positional.size()];
}

Result<Value> ChangedMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  Loop* loop = self.AsLoop();
  bool same = loop->changed_called && loop->last_changed.size() == arguments.positional.size();
  for (size_t i = 0; same && i < arguments.positional.size(); ++i) {
    EW_TRY(same, Equal(runtime, loop->last_changed[i], arguments.positional[i]));
  }
  loop->last_changed = arguments.positional;
  loop->changed_called = true;
  return Value::Bool(!same);
}

struct Method {
  std::string_view name;
  Builtin function;
};

constexpr Method kTextMethods[] = {
    {"strip", StripMethod<Side::kBoth>},
    {"lstrip", StripMethod<Side::kLeft>},
    {"rstrip", StripMethod<Side::kRight>},
    {"upper", ChangeMethod<Upper>},
    {"lower", ChangeMethod<Lower>},
    {"capitalize", ChangeMethod<Capitalize>},
    {"title", ChangeMethod<TitleWords>},
    {"startswith", AffixMethod<true>},
    {"endswith", AffixMethod<false>},
    {"removeprefix", RemoveAffixMethod<true>},
    {"removesuffix", RemoveAffixMethod<false>},
    {"split", SplitMethod<false>},
    {"rsplit", SplitMethod<true>},
    {"splitlines", SplitLinesMethod},
    {"replace", ReplaceMethod},
    {"join", JoinMethod},
    {"find", FindMethodOf<Search::kFind>},
    {"rfind", FindMethodOf<Search::kFindLast>},
    {"index", FindMethodOf<Search::kIndex>},
    {"count", CountTextMethod},
    {"isdigit", AllMethod<IsAsciiDigit>},
    {"isspace", AllMethod<IsSpace>},
};
constexpr Method kDictMethods[] = {{"get", GetMethod},
                                   {"items", ItemsMethod},
                                   {"keys", KeysMethod},
                                   {"values", ValuesMethod},
                                   {"update", UpdateMethod}};
constexpr Method kListMethods[] = {
    {"append", AppendMethod}, {"extend", ExtendMethod}, {"pop", PopMethod}, {"index", IndexMethod}};
constexpr Method kLoopMethods[] = {{"cycle", CycleMethod}, {"changed", ChangedMethod}};

template <size_t n>
Builtin FindIn(const Method (&methods)[n], std::string_view name) {
  const auto* found =
      std::find_if(methods, methods + n, [&](const Method& method) { return method.name == name; });
  return found == methods + n ? nullptr : found->function;
}

}  // namespace

Builtin FindMethod(const Value& self, std::string_view name) {
  if (self.AsText()) return FindIn(kTextMethods, name);
  if (self.AsDict()) return FindIn(kDictMethods, name);
  if (self.AsList()) return FindIn(kListMethods, name);
  if (self.AsLoop()) return FindIn(kLoopMethods, name);
  return nullptr;
}

}  // namespace edgewise::jinja
