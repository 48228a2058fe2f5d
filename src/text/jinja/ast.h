// The syntax tree of a template. Immutable once parsed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/value.h"

namespace edgewise::jinja {

struct FilterEntry;
struct TestEntry;
struct Expression;
struct Statement;
using ExpressionPtr = std::unique_ptr<Expression>;
using StatementPtr = std::unique_ptr<Statement>;
using Block = std::vector<StatementPtr>;

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kConcat,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Argument {
  enum class Kind : uint8_t { kPositional, kKeyword, kSpread, kKeywordSpread };
  Kind kind;
  std::string keyword;
  ExpressionPtr value;
};
using ArgumentList = std::vector<Argument>;

// A literal that needs no evaluation.
struct Constant {
  Value value;
};
struct Name {
  std::string name;
};
struct ListLiteral {
  std::vector<ExpressionPtr> items;
  bool tuple;
};
struct DictLiteral {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
};
struct Not {
  ExpressionPtr operand;
};
struct Sign {
  bool negative;
  ExpressionPtr operand;
};
// first op operand op operand ..., from left to right.
struct Binary {
  ExpressionPtr first;
  std::vector<std::pair<Operator, ExpressionPtr>> rest;
};
// first op operand and operand op operand and ...
struct Comparison {
  ExpressionPtr first;
  std::vector<std::pair<Operator, ExpressionPtr>> rest;
};
struct Logical {
  bool is_and;
  std::vector<ExpressionPtr> operands;
};
// `otherwise` may be null: undefined.
struct Conditional {
  ExpressionPtr test, then, otherwise;
};
struct Member {
  ExpressionPtr object;
  std::string name;
};
struct Subscript {
  ExpressionPtr object, index;
};
// Each bound may be null.
struct Slice {
  ExpressionPtr object, start, stop, step;
};
struct Call {
  ExpressionPtr callee;
  ArgumentList arguments;
};
// `operand` is null in a filter block.
struct FilterUse {
  ExpressionPtr operand;
  const FilterEntry* filter;
  ArgumentList arguments;
};
struct TestUse {
  ExpressionPtr operand;
  const TestEntry* test;
  ArgumentList arguments;
  bool negated;
};

struct Expression {
  uint32_t line;
  std::variant<Constant, Name, ListLiteral, DictLiteral, Not, Sign, Binary, Comparison, Logical,
               Conditional, Member, Subscript, Slice, Call, FilterUse, TestUse>
      node;
};

// What `set` and `for` assign to: a name, an attribute of a namespace, or a tuple of targets.
struct Target {
  std::string name;
  std::string attribute;        // of the namespace `name`, when not empty
  std::vector<Target> targets;  // a tuple, when not empty
};

struct Parameter {
  std::string name;
  ExpressionPtr fallback;  // null: undefined
};

struct MacroDefinition {
  std::string name;
  std::vector<Parameter> parameters;
  Block body;
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

struct TextOutput {
  Value text;
};
struct Output {
  ExpressionPtr value;
};
struct If {
  std::vector<std::pair<ExpressionPtr, Block>> branches;
  Block otherwise;
};
// `filter` may be null.
struct For {
  Target target;
  ExpressionPtr iterable, filter;
  Block body, otherwise;
};
struct Set {
  Target target;
  ExpressionPtr value;
};
// The rendered body passes through the filters in order.
struct SetBlock {
  Target target;
  std::vector<ExpressionPtr> filters;
  Block body;
};
struct FilterBlock {
  std::vector<ExpressionPtr> filters;
  Block body;
};
struct Macro {
  MacroDefinition definition;
};
struct CallBlock {
  ExpressionPtr call;
  MacroDefinition caller;
};
struct With {
  std::vector<std::pair<Target, ExpressionPtr>> bindings;
  Block body;
};
struct Break {};
struct Continue {};

struct Statement {
  uint32_t line;
  std::variant<TextOutput, Output, If, For, Set, SetBlock, FilterBlock, Macro, CallBlock, With,
               Break, Continue>
      node;
};

}  // namespace edgewise::jinja
