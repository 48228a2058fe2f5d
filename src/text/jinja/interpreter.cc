#include "text/jinja/interpreter.h"

#include <algorithm>

#include "base/strings.h"
#include "text/jinja/filters.h"

namespace edgewise::jinja {

// Says on which line of the template it happened; the message of raise_exception and of a limit
// stays as it is.
Error Interpreter::AtLine(Error error, uint32_t line) {
  if (located_ || (error.code != Code::kBadData && error.code != Code::kUnsupported)) return error;
  located_ = true;
  return std::move(error).In(Format("line %u", line));
}

Result<Text> Interpreter::Run(const Block& block, Scope* scope) {
  Text text;
  out_ = &text;
  Result<Flow> flow = Execute(block, scope);
  out_ = nullptr;
  if (!flow) return std::move(flow).error();
  return text;
}

Result<Interpreter::Flow> Interpreter::Execute(const Block& block, Scope* scope) {
  for (const StatementPtr& statement : block) {
    EW_TRY(runtime_.Charge(1));
    Result<Flow> flow = ExecuteOne(*statement, scope);
    if (!flow) return AtLine(std::move(flow).error(), statement->line);
    if (*flow != Flow::kNormal) return *flow;
  }
  return Flow::kNormal;
}

Result<Interpreter::Flow> Interpreter::ExecuteOne(const Statement& statement, Scope* scope) {
  const Level level(&depth_);
  EW_TRY(CheckDepth());
  return std::visit([&](const auto& node) { return Do(node, scope); }, statement.node);
}

Status Interpreter::CheckDepth() const {
  if (depth_ <= kDepthFactor * runtime_.limits().max_depth) return Ok{};
  return MakeError(Code::kOutOfMemory, "chat template: evaluation nested deeper than %d",
                   kDepthFactor * runtime_.limits().max_depth);
}

Status Interpreter::Write(const Text& text) {
  if (out_->size() + text.size() > runtime_.limits().max_output_bytes) {
    return MakeError(Code::kOutOfMemory, "chat template: the output is longer than %s",
                     FormatBytes(runtime_.limits().max_output_bytes).c_str());
  }
  EW_TRY(runtime_.ChargeBytes(text.size()));
  out_->Append(text);
  return Ok{};
}

Result<Interpreter::Flow> Interpreter::Do(const TextOutput& node, Scope*) {
  EW_TRY(Write(*node.text.AsText()));
  return Flow::kNormal;
}

Result<Interpreter::Flow> Interpreter::Do(const Output& node, Scope* scope) {
  EW_TRY(const Value value, Evaluate(*node.value, scope));
  if (const Text* text = value.AsText()) {
    EW_TRY(Write(*text));
  } else {
    EW_TRY(const Text written, ToText(runtime_, value));
    EW_TRY(Write(written));
  }
  return Flow::kNormal;
}

Result<Interpreter::Flow> Interpreter::Do(const If& node, Scope* scope) {
  for (const auto& [test, body] : node.branches) {
    EW_TRY(const Value value, Evaluate(*test, scope));
    if (value.Truthy()) return Execute(body, scope);
  }
  return Execute(node.otherwise, scope);
}

// Evaluates the iterable and keeps the elements that pass the loop's condition.
Result<Loop*> Interpreter::StartLoop(const For& node, Scope* scope) {
  EW_TRY(const Value iterable, Evaluate(*node.iterable, scope));
  EW_TRY(auto* loop, runtime_.MakeLoop());
  EW_TRY(loop->items, Elements(runtime_, iterable));
  if (!node.filter) return loop;
  std::vector<Value> kept;
  for (const Value& item : loop->items) {
    EW_TRY(auto* inner, runtime_.MakeScope(scope));
    EW_TRY(Assign(node.target, item, inner));
    EW_TRY(const Value keep, Evaluate(*node.filter, inner));
    if (keep.Truthy()) kept.push_back(item);
  }
  loop->items = std::move(kept);
  return loop;
}

Result<Interpreter::Flow> Interpreter::Do(const For& node, Scope* scope) {
  EW_TRY(auto* loop, StartLoop(node, scope));
  for (loop->index = 0; loop->index < loop->items.size(); ++loop->index) {
    // A scope for each turn: a macro defined inside keeps its own, and assignments do not carry
    // over.
    EW_TRY(auto* inner, runtime_.MakeScope(scope));
    inner->Set("loop", Value::Of(loop));
    EW_TRY(Assign(node.target, loop->items[loop->index], inner));
    EW_TRY(const Flow flow, Execute(node.body, inner));
    if (flow == Flow::kBreak) break;
  }
  if (!loop->items.empty()) return Flow::kNormal;
  EW_TRY(auto* inner, runtime_.MakeScope(scope));
  return Execute(node.otherwise, inner);
}

Status Interpreter::Assign(const Target& target, const Value& value, Scope* scope) {
  if (!target.targets.empty()) {
    EW_TRY(const std::vector<Value> items, Elements(runtime_, value));
    if (items.size() != target.targets.size()) {
      return MakeError(Code::kBadData, "%zu values for %zu variables", items.size(),
                       target.targets.size());
    }
    for (size_t i = 0; i < items.size(); ++i) EW_TRY(Assign(target.targets[i], items[i], scope));
    return Ok{};
  }
  if (target.attribute.empty()) {
    EW_TRY(runtime_.Charge(1 + scope->variables.size() / 16));
    scope->Set(target.name, value);
    return Ok{};
  }
  EW_TRY(const Value object, Get(Name{target.name}, scope));
  Namespace* names = object.AsNamespace();
  if (!names) return MakeError(Code::kBadData, "'%s' is no namespace", target.name.c_str());
  return runtime_.Set(&names->attributes, Value::String(target.attribute), value);
}

Result<Interpreter::Flow> Interpreter::Do(const Set& node, Scope* scope) {
  EW_TRY(const Value value, Evaluate(*node.value, scope));
  EW_TRY(Assign(node.target, value, scope));
  return Flow::kNormal;
}

Result<Value> Interpreter::Capture(const Block& block, Scope* scope) {
  EW_TRY(auto* inner, runtime_.MakeScope(scope));
  Text text;
  Text* const outer = std::exchange(out_, &text);
  Result<Flow> flow = Execute(block, inner);
  out_ = outer;
  if (!flow) return std::move(flow).error();
  return runtime_.MakeText(std::move(text));
}

Result<Value> Interpreter::ApplyFilters(const std::vector<ExpressionPtr>& filters, Value value,
                                        Scope* scope) {
  for (const ExpressionPtr& filter : filters) {
    EW_TRY(value, ApplyFilter(std::get<FilterUse>(filter->node), value, scope));
  }
  return value;
}

Result<Interpreter::Flow> Interpreter::Do(const SetBlock& node, Scope* scope) {
  EW_TRY(Value value, Capture(node.body, scope));
  EW_TRY(value, ApplyFilters(node.filters, std::move(value), scope));
  EW_TRY(Assign(node.target, value, scope));
  return Flow::kNormal;
}

Result<Interpreter::Flow> Interpreter::Do(const FilterBlock& node, Scope* scope) {
  EW_TRY(Value value, Capture(node.body, scope));
  EW_TRY(value, ApplyFilters(node.filters, std::move(value), scope));
  EW_TRY(const Text text, ToText(runtime_, value));
  EW_TRY(Write(text));
  return Flow::kNormal;
}

Result<Interpreter::Flow> Interpreter::Do(const With& node, Scope* scope) {
  EW_TRY(auto* inner, runtime_.MakeScope(scope));
  for (const auto& [target, expression] : node.bindings) {
    EW_TRY(const Value value, Evaluate(*expression, scope));
    EW_TRY(Assign(target, value, inner));
  }
  return Execute(node.body, inner);
}

Result<Interpreter::Flow> Interpreter::Do(const Macro& node, Scope* scope) {
  EW_TRY(auto* callable, runtime_.MakeCallable());
  callable->macro = &node.definition;
  callable->scope = scope;
  scope->Set(node.definition.name, Value::Of(callable));
  return Flow::kNormal;
}

Result<Interpreter::Flow> Interpreter::Do(const CallBlock& node, Scope* scope) {
  const Call& call = std::get<Call>(node.call->node);
  EW_TRY(const Value callee, Evaluate(*call.callee, scope));
  EW_TRY(const Arguments arguments, EvaluateArguments(call.arguments, scope));
  const Callable* callable = callee.AsCallable();
  if (!callable || !callable->macro) return MakeError(Code::kBadData, "a call block needs a macro");
  EW_TRY(auto* caller, runtime_.MakeCallable());
  caller->macro = &node.caller;
  caller->scope = scope;
  Callable with_caller = *callable;
  with_caller.caller = Value::Of(caller);
  EW_TRY(const Value value, CallMacro(with_caller, arguments));
  EW_TRY(const Text text, ToText(runtime_, value));
  EW_TRY(Write(text));
  return Flow::kNormal;
}

Result<Value> Interpreter::CallMacro(const Callable& callable, const Arguments& arguments) {
  const Level level(&macro_depth_);
  if (macro_depth_ > runtime_.limits().max_depth) {
    return MakeError(Code::kOutOfMemory, "chat template: macro calls nested deeper than %d",
                     runtime_.limits().max_depth);
  }
  EW_TRY(auto* scope, runtime_.MakeScope(callable.scope));
  EW_TRY(BindParameters(*callable.macro, arguments, scope));
  if (!callable.caller.is_undefined()) scope->Set("caller", callable.caller);
  return Capture(callable.macro->body, scope);
}

Status Interpreter::BindParameters(const MacroDefinition& macro, const Arguments& arguments,
                                   Scope* scope) {
  const auto& parameters = macro.parameters;
  const size_t given = arguments.positional.size();
  std::vector<bool> bound(parameters.size(), false);
  for (size_t i = 0; i < parameters.size(); ++i) {
    bound[i] = i < given;
    scope->Set(parameters[i].name, bound[i] ? arguments.positional[i] : Value());
  }
  EW_TRY(auto* extra, runtime_.MakeDict());
  for (const auto& [name, value] : arguments.keywords) {
    const auto found =
        std::find_if(parameters.begin(), parameters.end(),
                     [&](const Parameter& parameter) { return parameter.name == name; });
    const auto index = static_cast<size_t>(found - parameters.begin());
    if (found == parameters.end() && macro.uses_kwargs) {
      EW_TRY(runtime_.Set(extra, Value::String(name), value));
    } else if (found == parameters.end()) {
      return MakeError(Code::kBadData, "the macro '%s' has no parameter %s", macro.name.c_str(),
                       Quote(name).c_str());
    } else if (bound[index]) {
      return MakeError(Code::kBadData, "the macro '%s' got %s twice", macro.name.c_str(),
                       Quote(name).c_str());
    } else {
      bound[index] = true;
      scope->Set(found->name, value);
    }
  }
  if (given > parameters.size() && !macro.uses_varargs) {
    return MakeError(Code::kBadData, "the macro '%s' takes at most %zu arguments, got %zu",
                     macro.name.c_str(), parameters.size(), given);
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (bound[i] || !parameters[i].fallback) continue;
    EW_TRY(Value value, Evaluate(*parameters[i].fallback, scope));
    scope->Set(parameters[i].name, std::move(value));
  }
  if (macro.uses_kwargs) scope->Set("kwargs", Value::Of(extra));
  if (macro.uses_varargs) {
    const size_t first = std::min(given, parameters.size());
    EW_TRY(Value rest,
           runtime_.MakeList({arguments.positional.begin() + static_cast<std::ptrdiff_t>(first),
                              arguments.positional.end()},
                             true));
    scope->Set("varargs", std::move(rest));
  }
  return Ok{};
}

}  // namespace edgewise::jinja
