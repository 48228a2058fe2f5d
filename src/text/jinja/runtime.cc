#include "text/jinja/runtime.h"

#include <algorithm>

#include "base/strings.h"

namespace edgewise::jinja {

Value* Scope::Find(std::string_view name) {
  for (auto& [key, value] : variables) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Scope::Set(std::string_view name, Value value) {
  if (Value* found = Find(name)) {
    *found = std::move(value);
  } else {
    variables.emplace_back(name, std::move(value));
  }
}

Status Runtime::Charge(uint64_t steps) {
  if (steps > limits_.max_steps - steps_) {
    steps_ = limits_.max_steps;
    return MakeError(Code::kOutOfMemory, "chat template: more than %llu steps",
                     static_cast<unsigned long long>(limits_.max_steps));
  }
  steps_ += steps;
  return Ok{};
}

Result<Value> Runtime::MakeText(Text text) {
  if (text.size() > limits_.max_output_bytes) {
    return MakeError(Code::kOutOfMemory, "chat template: a text above the limit of %s",
                     FormatBytes(limits_.max_output_bytes).c_str());
  }
  EW_TRY(ChargeBytes(text.size()));
  return Value::String(std::move(text));
}

Result<Value> Runtime::MakeList(std::vector<Value> items, bool tuple) {
  EW_TRY(Charge(1 + items.size()));
  lists_.push_back({std::move(items), tuple});
  return Value::Of(&lists_.back());
}

Result<Dict*> Runtime::MakeDict() {
  EW_TRY(Charge(1));
  return &dicts_.emplace_back();
}

Result<Namespace*> Runtime::MakeNamespace() {
  EW_TRY(Charge(1));
  return &namespaces_.emplace_back();
}

Result<Callable*> Runtime::MakeCallable() {
  EW_TRY(Charge(1));
  return &callables_.emplace_back();
}

Result<Loop*> Runtime::MakeLoop() {
  EW_TRY(Charge(1));
  return &loops_.emplace_back();
}

Result<Scope*> Runtime::MakeScope(Scope* parent) {
  EW_TRY(Charge(1));
  Scope* scope = &scopes_.emplace_back();
  scope->parent = parent;
  return scope;
}

Result<Value*> Runtime::Find(Dict* dict, const Value& key) {
  EW_TRY(Charge(1 + dict->entries.size() / 16));
  for (auto& [name, value] : dict->entries) {
    EW_TRY(const bool same, Equal(*this, name, key));
    if (same) return &value;
  }
  return static_cast<Value*>(nullptr);
}

Result<Value*> Runtime::Find(Dict* dict, std::string_view key) {
  EW_TRY(Charge(1 + dict->entries.size() / 16));
  for (auto& [name, value] : dict->entries) {
    const Text* text = name.AsText();
    if (text && text->bytes() == key) return &value;
  }
  return static_cast<Value*>(nullptr);
}

Status Runtime::Set(Dict* dict, const Value& key, Value value) {
  if (!key.is_none() && !key.is_number() && !key.AsText()) {
    return MakeError(Code::kBadData, "a key of type '%s' in a dict", key.TypeName());
  }
  EW_TRY(auto* found, Find(dict, key));
  if (found) {
    *found = std::move(value);
  } else {
    dict->entries.emplace_back(key, std::move(value));
  }
  return Ok{};
}

Result<std::vector<const Value*>> Bind(const Arguments& arguments, std::string_view function,
                                       std::initializer_list<std::string_view> names,
                                       size_t required) {
  const std::string called(function);
  std::vector<const Value*> bound(names.size(), nullptr);
  if (arguments.positional.size() > names.size()) {
    return MakeError(Code::kBadData, "%s() takes at most %zu arguments, got %zu", called.c_str(),
                     names.size(), arguments.positional.size());
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) bound[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.keywords) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) {
      return MakeError(Code::kBadData, "%s() has no argument named %s", called.c_str(),
                       Quote(name).c_str());
    }
    const Value*& slot = bound[static_cast<size_t>(found - names.begin())];
    if (slot)
      return MakeError(Code::kBadData, "%s() got %s twice", called.c_str(), Quote(name).c_str());
    slot = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!bound[i]) {
      return MakeError(Code::kBadData, "%s() needs the argument '%s'", called.c_str(),
                       std::string(names.begin()[i]).c_str());
    }
  }
  return bound;
}

Result<int64_t> IntegerArgument(const Value* value, std::string_view function, int64_t fallback) {
  if (!value || value->is_none()) return fallback;
  if (value->is_int() || value->is_bool()) return value->Integer();
  return MakeError(Code::kBadData, "%s() needs an integer, got '%s'", std::string(function).c_str(),
                   value->TypeName());
}

Result<const Text*> TextArgument(const Value* value, std::string_view function) {
  const Text* text = value ? value->AsText() : nullptr;
  if (text) return text;
  return MakeError(Code::kBadData, "%s() needs a string, got '%s'", std::string(function).c_str(),
                   value ? value->TypeName() : "nothing");
}

}  // namespace edgewise::jinja
