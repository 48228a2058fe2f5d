// The interpreter's expressions.
#include "base/strings.h"
#include "text/jinja/characters.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/methods.h"
#include "text/jinja/tests.h"

namespace edgewise::jinja {
namespace {

// How the template spells an undefined value, for the message about it.
std::string Spelling(const Expression& expression) {
  if (const auto* name = std::get_if<Name>(&expression.node)) return name->name;
  if (const auto* member = std::get_if<Member>(&expression.node))
    return Spelling(*member->object) + "." + member->name;
  return "a value";
}

Error UndefinedError(const Expression& expression) {
  return MakeError(Code::kBadData, "%s is undefined", Quote(Spelling(expression)).c_str());
}

// The part [start, stop) in steps of a sequence, with Python's rules for absent and negative
// bounds.
struct Range {
  int64_t start, stop, step;
};

Result<Range> ResolveSlice(const Value& start, const Value& stop, const Value& step,
                           int64_t length) {
  const auto bound = [](const Value& value, int64_t fallback) -> Result<int64_t> {
    return IntegerArgument(value.is_undefined() ? nullptr : &value, "slice", fallback);
  };
  EW_TRY(const int64_t stride, bound(step, 1));
  if (stride == 0) return MakeError(Code::kBadData, "a slice with step 0");
  const int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? length : length - 1;
  const auto clip = [&](int64_t at) {
    return std::min(std::max(at < 0 ? at + length : at, low), high);
  };
  Range range{stride > 0 ? low : high, stride > 0 ? high : low, stride};
  if (!start.is_undefined() && !start.is_none()) {
    EW_TRY(const int64_t at, bound(start, 0));
    range.start = clip(at);
  }
  if (!stop.is_undefined() && !stop.is_none()) {
    EW_TRY(const int64_t at, bound(stop, 0));
    range.stop = clip(at);
  }
  return range;
}

// Calls `each` with every index of the range; overflow-safe for any step.
template <class Function>
void ForEachIndex(const Range& range, Function each) {
  if (range.step > 0) {
    for (int64_t at = range.start; at < range.stop; at += std::min(range.step, range.stop - at))
      each(at);
  } else {
    for (int64_t at = range.start; at > range.stop;
         at -= std::min(-(range.step + 1), at - range.stop - 1) + 1)
      each(at);
  }
}

}  // namespace

Result<Value> Interpreter::Evaluate(const Expression& expression, Scope* scope) {
  const Level level(&depth_);
  EW_TRY(CheckDepth());
  EW_TRY(runtime_.Charge(1));
  return std::visit([&](const auto& node) { return Get(node, scope); }, expression.node);
}

Result<Value> Interpreter::Get(const Constant& node, Scope*) { return node.value; }

Result<Value> Interpreter::Get(const Name& node, Scope* scope) {
  for (; scope; scope = scope->parent) {
    EW_TRY(runtime_.Charge(scope->variables.size() / 16));
    if (const Value* found = scope->Find(node.name)) return *found;
  }
  return Value();
}

Result<Value> Interpreter::Get(const ListLiteral& node, Scope* scope) {
  std::vector<Value> items;
  for (const ExpressionPtr& item : node.items) {
    EW_TRY(Value value, Evaluate(*item, scope));
    items.push_back(std::move(value));
  }
  return runtime_.MakeList(std::move(items), node.tuple);
}

Result<Value> Interpreter::Get(const DictLiteral& node, Scope* scope) {
  EW_TRY(auto* dict, runtime_.MakeDict());
  for (const auto& [key, value] : node.entries) {
    EW_TRY(const Value name, Evaluate(*key, scope));
    EW_TRY(Value item, Evaluate(*value, scope));
    EW_TRY(runtime_.Set(dict, name, std::move(item)));
  }
  return Value::Of(dict);
}

Result<Value> Interpreter::Get(const Not& node, Scope* scope) {
  EW_TRY(const Value value, Evaluate(*node.operand, scope));
  return Value::Bool(!value.Truthy());
}

Result<Value> Interpreter::Get(const Sign& node, Scope* scope) {
  EW_TRY(const Value value, Evaluate(*node.operand, scope));
  if (!value.is_number()) {
    if (value.is_undefined()) return UndefinedError(*node.operand);
    return MakeError(Code::kBadData, "a sign before a '%s'", value.TypeName());
  }
  if (node.negative) return Arithmetic(runtime_, Operator::kSubtract, Value::Int(0), value);
  return Arithmetic(runtime_, Operator::kAdd, Value::Int(0), value);
}

Result<Value> Interpreter::Get(const Binary& node, Scope* scope) {
  EW_TRY(Value value, Evaluate(*node.first, scope));
  const Expression* left = node.first.get();
  for (const auto& [op, expression] : node.rest) {
    EW_TRY(const Value operand, Evaluate(*expression, scope));
    if (op != Operator::kConcat) {
      if (value.is_undefined()) return UndefinedError(*left);
      if (operand.is_undefined()) return UndefinedError(*expression);
    }
    EW_TRY(value, Arithmetic(runtime_, op, value, operand));
  }
  return value;
}

Result<Value> Interpreter::Get(const Comparison& node, Scope* scope) {
  EW_TRY(Value left, Evaluate(*node.first, scope));
  for (const auto& [op, expression] : node.rest) {
    EW_TRY(Value right, Evaluate(*expression, scope));
    EW_TRY(const bool holds, Compare(runtime_, op, left, right));
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

Result<Value> Interpreter::Get(const Logical& node, Scope* scope) {
  Value value;
  for (const ExpressionPtr& operand : node.operands) {
    EW_TRY(value, Evaluate(*operand, scope));
    if (value.Truthy() != node.is_and) break;
  }
  return value;
}

Result<Value> Interpreter::Get(const Conditional& node, Scope* scope) {
  EW_TRY(const Value test, Evaluate(*node.test, scope));
  if (test.Truthy()) return Evaluate(*node.then, scope);
  if (node.otherwise) return Evaluate(*node.otherwise, scope);
  return Value();
}

Result<Value> Interpreter::Get(const Member& node, Scope* scope) {
  EW_TRY(const Value object, Evaluate(*node.object, scope));
  if (object.is_undefined()) return UndefinedError(*node.object);
  return MemberOf(runtime_, object, node.name);
}

Result<Value> Interpreter::Get(const Subscript& node, Scope* scope) {
  EW_TRY(const Value object, Evaluate(*node.object, scope));
  if (object.is_undefined()) return UndefinedError(*node.object);
  EW_TRY(const Value index, Evaluate(*node.index, scope));
  return ElementOf(runtime_, object, index);
}

Result<Value> Interpreter::Get(const Slice& node, Scope* scope) {
  EW_TRY(const Value object, Evaluate(*node.object, scope));
  if (object.is_undefined()) return UndefinedError(*node.object);
  Value bounds[3];
  const ExpressionPtr* expressions[3] = {&node.start, &node.stop, &node.step};
  for (int i = 0; i < 3; ++i) {
    if (!*expressions[i]) continue;
    EW_TRY(bounds[i], Evaluate(**expressions[i], scope));
  }
  if (const List* list = object.AsList()) {
    EW_TRY(const Range range,
           ResolveSlice(bounds[0], bounds[1], bounds[2], static_cast<int64_t>(list->items.size())));
    EW_TRY(runtime_.Charge(1 + list->items.size()));
    std::vector<Value> items;
    ForEachIndex(range, [&](int64_t at) { items.push_back(list->items[static_cast<size_t>(at)]); });
    return runtime_.MakeList(std::move(items), list->tuple);
  }
  const Text* text = object.AsText();
  if (!text) return MakeError(Code::kBadData, "a slice of a '%s'", object.TypeName());
  EW_TRY(runtime_.ChargeBytes(text->size()));
  const std::vector<size_t> offsets = CharacterOffsets(text->bytes());
  EW_TRY(const Range range,
         ResolveSlice(bounds[0], bounds[1], bounds[2], static_cast<int64_t>(offsets.size() - 1)));
  Text part;
  ForEachIndex(range, [&](int64_t at) {
    const auto index = static_cast<size_t>(at);
    part.Append(*text, offsets[index], offsets[index + 1]);
  });
  return runtime_.MakeText(std::move(part));
}

Result<Value> Interpreter::Get(const Call& node, Scope* scope) {
  EW_TRY(const Value callee, Evaluate(*node.callee, scope));
  if (callee.is_undefined()) return UndefinedError(*node.callee);
  EW_TRY(const Arguments arguments, EvaluateArguments(node.arguments, scope));
  return CallValue(callee, arguments);
}

Result<Value> Interpreter::CallValue(const Value& callee, const Arguments& arguments) {
  const Callable* callable = callee.AsCallable();
  if (!callable) return MakeError(Code::kBadData, "a '%s' is not callable", callee.TypeName());
  if (callable->macro) return CallMacro(*callable, arguments);
  return callable->builtin(runtime_, callable->self, arguments);
}

Result<Arguments> Interpreter::EvaluateArguments(const ArgumentList& list, Scope* scope) {
  Arguments arguments;
  for (const Argument& argument : list) {
    EW_TRY(const Value value, Evaluate(*argument.value, scope));
    switch (argument.kind) {
      case Argument::Kind::kPositional:
        arguments.positional.push_back(value);
        break;
      case Argument::Kind::kKeyword:
        arguments.keywords.emplace_back(argument.keyword, value);
        break;
      case Argument::Kind::kSpread: {
        EW_TRY(const std::vector<Value> items, Elements(runtime_, value));
        arguments.positional.insert(arguments.positional.end(), items.begin(), items.end());
        break;
      }
      case Argument::Kind::kKeywordSpread: {
        const Dict* dict = value.AsDict();
        if (!dict) return MakeError(Code::kBadData, "'**' before a '%s'", value.TypeName());
        EW_TRY(runtime_.Charge(1 + dict->entries.size()));
        for (const auto& [key, item] : dict->entries) {
          EW_TRY(const Text* name, TextArgument(&key, "**"));
          arguments.keywords.emplace_back(name->bytes(), item);
        }
        break;
      }
    }
  }
  return arguments;
}

Result<Value> Interpreter::Get(const FilterUse& node, Scope* scope) {
  EW_TRY(const Value operand, Evaluate(*node.operand, scope));
  return ApplyFilter(node, operand, scope);
}

Result<Value> Interpreter::ApplyFilter(const FilterUse& node, const Value& operand, Scope* scope) {
  EW_TRY(const Arguments arguments, EvaluateArguments(node.arguments, scope));
  return node.filter->function(runtime_, operand, arguments);
}

Result<Value> Interpreter::Get(const TestUse& node, Scope* scope) {
  EW_TRY(const Value operand, Evaluate(*node.operand, scope));
  EW_TRY(const Arguments arguments, EvaluateArguments(node.arguments, scope));
  EW_TRY(const bool holds, node.test->function(runtime_, operand, arguments));
  return Value::Bool(holds != node.negated);
}

}  // namespace edgewise::jinja
