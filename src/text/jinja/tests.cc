#include "text/jinja/tests.h"

#include <algorithm>
#include <iterator>

#include "base/strings.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/strings.h"

namespace edgewise::jinja {
namespace {

template <bool (*holds)(const Value&)>
Result<bool> Simple(Runtime&, const Value& self, const Arguments& arguments) {
  EW_TRY(Bind(arguments, "the test", {}));
  return holds(self);
}

bool IsDefined(const Value& value) { return !value.is_undefined(); }
bool IsUndefined(const Value& value) { return value.is_undefined(); }
bool IsNone(const Value& value) { return value.is_none(); }
bool IsBoolean(const Value& value) { return value.is_bool(); }
bool IsTrue(const Value& value) { return value.is_bool() && value.Integer() == 1; }
bool IsFalse(const Value& value) { return value.is_bool() && value.Integer() == 0; }
bool IsInteger(const Value& value) { return value.is_int(); }
bool IsFloat(const Value& value) { return value.is_float(); }
bool IsNumber(const Value& value) { return value.is_number(); }
bool IsString(const Value& value) { return value.AsText() != nullptr; }
bool IsMapping(const Value& value) { return value.AsDict() != nullptr; }
bool IsIterable(const Value& value) {
  return value.AsText() || value.AsList() || value.AsDict() || value.AsLoop() ||
         value.is_undefined();
}
bool IsSequence(const Value& value) {
  return value.AsText() || value.AsList() || value.AsDict() || value.is_undefined();
}
bool IsCallable(const Value& value) { return value.AsCallable() != nullptr; }
bool IsEscaped(const Value&) { return false; }

Result<int64_t> IntegerOf(const Value& value, const char* test) {
  if (value.is_int() || value.is_bool()) return value.Integer();
  return MakeError(Code::kBadData, "the test '%s' of a '%s'", test, value.TypeName());
}

Result<bool> Odd(Runtime&, const Value& self, const Arguments&) {
  EW_TRY(const int64_t value, IntegerOf(self, "odd"));
  return value % 2 != 0;
}

Result<bool> Even(Runtime&, const Value& self, const Arguments&) {
  EW_TRY(const int64_t value, IntegerOf(self, "even"));
  return value % 2 == 0;
}

Result<bool> DivisibleBy(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "divisibleby", {"num"}, 1));
  EW_TRY(const Value rest, Arithmetic(runtime, Operator::kModulo, self, *args[0]));
  return !rest.Truthy();
}

template <Operator op>
Result<bool> Compares(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "the comparison", {"other"}, 1));
  return Compare(runtime, op, self, *args[0]);
}

Result<bool> SameAs(Runtime& runtime, const Value& self, const Arguments& arguments) {
  EW_TRY(const auto args, Bind(arguments, "sameas", {"other"}, 1));
  const Value& other = *args[0];
  if (self.AsList() || self.AsDict())
    return self.AsList() == other.AsList() && self.AsDict() == other.AsDict();
  if (self.is_bool() != other.is_bool() || self.is_float() != other.is_float()) return false;
  return Equal(runtime, self, other);
}

template <Text (*change)(const Text&), Text (*opposite)(const Text&)>
Result<bool> HasCase(Runtime& runtime, const Value& self, const Arguments&) {
  EW_TRY(const Text text, ToText(runtime, self));
  EW_TRY(runtime.ChargeBytes(text.size() * 16));
  return change(text).bytes() == text.bytes() && opposite(text).bytes() != text.bytes();
}

constexpr TestEntry kTests[] = {
    {"defined", Simple<IsDefined>, false},
    {"undefined", Simple<IsUndefined>, false},
    {"none", Simple<IsNone>, false},
    {"boolean", Simple<IsBoolean>, false},
    {"true", Simple<IsTrue>, false},
    {"false", Simple<IsFalse>, false},
    {"integer", Simple<IsInteger>, false},
    {"float", Simple<IsFloat>, false},
    {"number", Simple<IsNumber>, false},
    {"string", Simple<IsString>, false},
    {"mapping", Simple<IsMapping>, false},
    {"iterable", Simple<IsIterable>, false},
    {"sequence", Simple<IsSequence>, false},
    {"callable", Simple<IsCallable>, false},
    {"escaped", Simple<IsEscaped>, false},
    {"odd", Odd, false},
    {"even", Even, false},
    {"lower", HasCase<Lower, Upper>, false},
    {"upper", HasCase<Upper, Lower>, false},
    {"divisibleby", DivisibleBy, true},
    {"sameas", SameAs, true},
    {"in", Compares<Operator::kIn>, true},
    {"eq", Compares<Operator::kEqual>, true},
    {"equalto", Compares<Operator::kEqual>, true},
    {"==", Compares<Operator::kEqual>, true},
    {"ne", Compares<Operator::kNotEqual>, true},
    {"!=", Compares<Operator::kNotEqual>, true},
    {"lt", Compares<Operator::kLess>, true},
    {"lessthan", Compares<Operator::kLess>, true},
    {"<", Compares<Operator::kLess>, true},
    {"le", Compares<Operator::kLessEqual>, true},
    {"<=", Compares<Operator::kLessEqual>, true},
    {"gt", Compares<Operator::kGreater>, true},
    {"greaterthan", Compares<Operator::kGreater>, true},
    {">", Compares<Operator::kGreater>, true},
    {"ge", Compares<Operator::kGreaterEqual>, true},
    {">=", Compares<Operator::kGreaterEqual>, true},
};

}  // namespace

const TestEntry* FindTest(std::string_view name) {
  const auto* found = std::find_if(std::begin(kTests), std::end(kTests),
                                   [&](const TestEntry& test) { return test.name == name; });
  return found == std::end(kTests) ? nullptr : found;
}

}  // namespace edgewise::jinja
