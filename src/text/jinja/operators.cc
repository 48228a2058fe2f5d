// Arithmetic, comparison, members and elements.
#include <cmath>

#include "base/strings.h"
#include "text/jinja/characters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/methods.h"

namespace edgewise::jinja {
namespace {

Error Overflow() { return MakeError(Code::kBadData, "an integer beyond 64 bits"); }
Error DivisionByZero() { return MakeError(Code::kBadData, "a division by zero"); }

Result<Value> IntegerPower(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (true) {
    if (exponent & 1) {
      if (__builtin_mul_overflow(result, base, &result)) return Overflow();
    }
    exponent >>= 1;
    if (exponent == 0) return Value::Int(result);
    if (__builtin_mul_overflow(base, base, &base)) return Overflow();
  }
}

Result<Value> IntegerArithmetic(Operator op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return Overflow();
      return Value::Int(result);
    case Operator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) return Overflow();
      return Value::Int(result);
    case Operator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) return Overflow();
      return Value::Int(result);
    case Operator::kFloorDivide:
    case Operator::kModulo: {
      if (b == 0) return DivisionByZero();
      if (b == -1) {
        if (op == Operator::kModulo) return Value::Int(0);
        if (__builtin_sub_overflow(int64_t{0}, a, &result)) return Overflow();
        return Value::Int(result);
      }
      const int64_t remainder = a % b;
      const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);  // round down, as Python
      return Value::Int(op == Operator::kModulo ? remainder + (adjust ? b : 0)
                                                : a / b - (adjust ? 1 : 0));
    }
    case Operator::kPower:
      if (b >= 0) return IntegerPower(a, b);
      break;
    default:
      break;
  }
  if (op == Operator::kDivide && b == 0) return DivisionByZero();
  if (op == Operator::kPower && a == 0) return DivisionByZero();
  const auto x = static_cast<double>(a), y = static_cast<double>(b);
  return Value::Float(op == Operator::kDivide ? x / y : std::pow(x, y));
}

Result<Value> FloatArithmetic(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value::Float(a + b);
    case Operator::kSubtract:
      return Value::Float(a - b);
    case Operator::kMultiply:
      return Value::Float(a * b);
    case Operator::kPower:
      if (a == 0 && b < 0) return DivisionByZero();
      return Value::Float(std::pow(a, b));
    default:
      break;
  }
  if (b == 0) return DivisionByZero();
  if (op == Operator::kDivide) return Value::Float(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  return Value::Float(op == Operator::kModulo ? remainder : std::floor((a - remainder) / b + 0.5));
}

Result<Value> Repeat(Runtime& runtime, const Value& sequence, int64_t times) {
  if (times < 0) times = 0;
  const Text* text = sequence.AsText();
  const uint64_t size = text ? text->size() : sequence.AsList()->items.size();
  uint64_t total = 0;
  if (__builtin_mul_overflow(size, static_cast<uint64_t>(times), &total) ||
      total > runtime.limits().max_output_bytes) {
    return MakeError(Code::kOutOfMemory, "chat template: a text or list repeated beyond the limit");
  }
  EW_TRY(runtime.Charge(text ? static_cast<uint64_t>(size == 0 ? 0 : times) : total));
  if (text) {
    Text result;
    for (int64_t i = 0; size > 0 && i < times; ++i) result.Append(*text);
    return runtime.MakeText(std::move(result));
  }
  std::vector<Value> items;
  for (int64_t i = 0; size > 0 && i < times; ++i) {
    items.insert(items.end(), sequence.AsList()->items.begin(), sequence.AsList()->items.end());
  }
  return runtime.MakeList(std::move(items), sequence.AsList()->tuple);
}

Result<Value> Concatenate(Runtime& runtime, const Text& left, const Text& right) {
  Text text = left;
  text.Append(right);
  return runtime.MakeText(std::move(text));
}

Result<Value> BoundMethod(Runtime& runtime, const Value& self, std::string_view name) {
  const Builtin method = FindMethod(self, name);
  if (!method) return Value();
  EW_TRY(auto* callable, runtime.MakeCallable());
  callable->builtin = method;
  callable->self = self;
  return Value::Of(callable);
}

Result<Value> LoopMember(Runtime& runtime, const Loop& loop, const Value& self,
                         std::string_view name) {
  const auto index = static_cast<int64_t>(loop.index),
             length = static_cast<int64_t>(loop.items.size());
  if (name == "index") return Value::Int(index + 1);
  if (name == "index0") return Value::Int(index);
  if (name == "revindex") return Value::Int(length - index);
  if (name == "revindex0") return Value::Int(length - index - 1);
  if (name == "first") return Value::Bool(index == 0);
  if (name == "last") return Value::Bool(index + 1 == length);
  if (name == "length") return Value::Int(length);
  if (name == "depth") return Value::Int(1);
  if (name == "depth0") return Value::Int(0);
  if (name == "previtem") return index > 0 ? loop.items[loop.index - 1] : Value();
  if (name == "nextitem") return index + 1 < length ? loop.items[loop.index + 1] : Value();
  return BoundMethod(runtime, self, name);
}

}  // namespace

Result<Value> Arithmetic(Runtime& runtime, Operator op, const Value& left, const Value& right) {
  if (op == Operator::kConcat) {
    EW_TRY(const Text a, ToText(runtime, left));
    EW_TRY(const Text b, ToText(runtime, right));
    return Concatenate(runtime, a, b);
  }
  if (left.is_number() && right.is_number()) {
    if (left.is_float() || right.is_float())
      return FloatArithmetic(op, left.Number(), right.Number());
    return IntegerArithmetic(op, left.Integer(), right.Integer());
  }
  if (op == Operator::kAdd && left.AsText() && right.AsText()) {
    return Concatenate(runtime, *left.AsText(), *right.AsText());
  }
  const List *a = left.AsList(), *b = right.AsList();
  if (op == Operator::kAdd && a && b && a->tuple == b->tuple) {
    EW_TRY(runtime.Charge(a->items.size() + b->items.size()));
    std::vector<Value> items = a->items;
    items.insert(items.end(), b->items.begin(), b->items.end());
    return runtime.MakeList(std::move(items), a->tuple);
  }
  if (op == Operator::kMultiply) {
    const auto counts = [](const Value& value) { return value.is_int() || value.is_bool(); };
    if ((left.AsText() || a) && counts(right)) return Repeat(runtime, left, right.Integer());
    if ((right.AsText() || b) && counts(left)) return Repeat(runtime, right, left.Integer());
  }
  if (op == Operator::kModulo && left.AsText()) {
    return MakeError(Code::kUnsupported, "formatting a string with '%%'");
  }
  static constexpr const char* kSpelling[] = {"+", "-", "*", "/", "//", "%", "**"};
  return MakeError(Code::kBadData, "'%s' between '%s' and '%s'", kSpelling[static_cast<int>(op)],
                   left.TypeName(), right.TypeName());
}

Result<bool> Compare(Runtime& runtime, Operator op, const Value& left, const Value& right) {
  const auto negate = [](Result<bool> result) -> Result<bool> {
    if (!result) return result;
    return !*result;
  };
  switch (op) {
    case Operator::kEqual:
      return Equal(runtime, left, right);
    case Operator::kNotEqual:
      return negate(Equal(runtime, left, right));
    case Operator::kIn:
      return Contains(runtime, right, left);
    case Operator::kNotIn:
      return negate(Contains(runtime, right, left));
    case Operator::kLess:
      return Less(runtime, left, right);
    case Operator::kGreater:
      return Less(runtime, right, left);
    default:
      break;
  }
  const bool swapped = op == Operator::kGreaterEqual;
  const Value &a = swapped ? right : left, &b = swapped ? left : right;
  EW_TRY(const bool less, Less(runtime, a, b));
  if (less) return true;
  return Equal(runtime, a, b);
}

Result<Value> ElementOf(Runtime& runtime, const Value& value, const Value& index) {
  if (Dict* dict = value.AsDict()) {
    EW_TRY(const Value* found, runtime.Find(dict, index));
    if (found) return *found;
  } else if (index.is_int() || index.is_bool()) {
    int64_t at = index.Integer();
    if (const List* list = value.AsList()) {
      const auto length = static_cast<int64_t>(list->items.size());
      if (at < 0) at += length;
      return at >= 0 && at < length ? list->items[static_cast<size_t>(at)] : Value();
    }
    const Text* text = value.AsText();
    if (!text) return Value();
    EW_TRY(runtime.ChargeBytes(text->size()));
    const std::vector<size_t> offsets = CharacterOffsets(text->bytes());
    const auto length = static_cast<int64_t>(offsets.size()) - 1;
    if (at < 0) at += length;
    if (at < 0 || at >= length) return Value();
    return runtime.MakeText(
        text->Slice(offsets[static_cast<size_t>(at)], offsets[static_cast<size_t>(at) + 1]));
  }
  if (const Text* name = index.AsText()) return MemberOf(runtime, value, name->bytes());
  return Value();
}

Result<Value> MemberOf(Runtime& runtime, const Value& value, std::string_view name) {
  if (Namespace* names = value.AsNamespace()) {
    EW_TRY(const Value* found, runtime.Find(&names->attributes, name));
    return found ? *found : Value();
  }
  if (const Loop* loop = value.AsLoop()) return LoopMember(runtime, *loop, value, name);
  // As in Python, a dict's methods hide its entries of the same name from the dot.
  EW_TRY(const Value method, BoundMethod(runtime, value, name));
  if (!method.is_undefined()) return method;
  if (Dict* dict = value.AsDict()) {
    EW_TRY(const Value* found, runtime.Find(dict, name));
    if (found) return *found;
  }
  return Value();
}

}  // namespace edgewise::jinja
