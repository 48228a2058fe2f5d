#include "text/jinja/expression_parser.h"

#include <array>
#include <optional>

#include "base/strings.h"
#include "text/jinja/filters.h"
#include "text/jinja/tests.h"

namespace edgewise::jinja {
namespace {

struct OperatorSpelling {
  std::string_view text;
  Operator value;
  int level;  // binding strength of the arithmetic ones
};

constexpr int kLevels = 4;
constexpr std::array<OperatorSpelling, 14> kSpellings = {{{"+", Operator::kAdd, 0},
                                                          {"-", Operator::kSubtract, 0},
                                                          {"~", Operator::kConcat, 1},
                                                          {"*", Operator::kMultiply, 2},
                                                          {"/", Operator::kDivide, 2},
                                                          {"//", Operator::kFloorDivide, 2},
                                                          {"%", Operator::kModulo, 2},
                                                          {"**", Operator::kPower, 3},
                                                          {"==", Operator::kEqual, -1},
                                                          {"!=", Operator::kNotEqual, -1},
                                                          {"<", Operator::kLess, -1},
                                                          {"<=", Operator::kLessEqual, -1},
                                                          {">", Operator::kGreater, -1},
                                                          {">=", Operator::kGreaterEqual, -1}}};
constexpr int kComparisonLevel = -1;

std::optional<Operator> OperatorOf(const Token& token, int level) {
  if (token.kind != TokenKind::kOperator) return std::nullopt;
  for (const OperatorSpelling& spelling : kSpellings) {
    if (spelling.level == level && spelling.text == token.text) return spelling.value;
  }
  return std::nullopt;
}

}  // namespace

bool ExpressionParser::TakeOperator(std::string_view text) {
  if (!IsOperator(text)) return false;
  ++position_;
  return true;
}

bool ExpressionParser::TakeName(std::string_view text) {
  if (!IsName(text)) return false;
  ++position_;
  return true;
}

Status ExpressionParser::ExpectOperator(std::string_view text) {
  if (TakeOperator(text)) return Ok{};
  return Unexpected("'" + std::string(text) + "'");
}

Result<std::string> ExpressionParser::ExpectName(std::string_view what) {
  if (Peek().kind != TokenKind::kName) return Unexpected(what);
  return Take().text;
}

Status ExpressionParser::CheckDepth() const {
  if (depth_ <= max_depth_) return Ok{};
  return SyntaxError(Peek(), Format("nested deeper than %d", max_depth_));
}

Error ExpressionParser::Unexpected(std::string_view wanted) const {
  return SyntaxError(Peek(), "expected " + std::string(wanted) + ", found " + Quote(Peek().text));
}

Result<ExpressionPtr> ExpressionParser::ParseExpression() {
  const Level level(&depth_);
  EW_TRY(CheckDepth());
  EW_TRY(ExpressionPtr value, ParseOr());
  if (!IsName("if")) return value;
  const uint32_t line = Take().line;
  EW_TRY(ExpressionPtr test, ParseOr());
  ExpressionPtr otherwise;
  if (TakeName("else")) {
    EW_TRY(otherwise, ParseExpression());
  }
  return MakeExpression(line, Conditional{std::move(test), std::move(value), std::move(otherwise)});
}

bool ExpressionParser::AtTupleEnd() const {
  const TokenKind kind = Peek().kind;
  return kind == TokenKind::kBlockEnd || kind == TokenKind::kOutputEnd || kind == TokenKind::kEnd ||
         IsOperator(")") || IsOperator("=");
}

Result<ExpressionPtr> ExpressionParser::ParseTuple(bool conditional) {
  const uint32_t line = Peek().line;
  EW_TRY(ExpressionPtr first, conditional ? ParseExpression() : ParseOr());
  if (!IsOperator(",")) return first;
  ListLiteral tuple{{}, true};
  tuple.items.push_back(std::move(first));
  while (TakeOperator(",") && !AtTupleEnd()) {
    EW_TRY(ExpressionPtr item, conditional ? ParseExpression() : ParseOr());
    tuple.items.push_back(std::move(item));
  }
  return MakeExpression(line, std::move(tuple));
}

Result<ExpressionPtr> ExpressionParser::ParseOr() {
  const uint32_t line = Peek().line;
  EW_TRY(ExpressionPtr first, ParseAnd());
  if (!IsName("or")) return first;
  Logical node{false, {}};
  node.operands.push_back(std::move(first));
  while (TakeName("or")) {
    EW_TRY(ExpressionPtr operand, ParseAnd());
    node.operands.push_back(std::move(operand));
  }
  return MakeExpression(line, std::move(node));
}

Result<ExpressionPtr> ExpressionParser::ParseAnd() {
  const uint32_t line = Peek().line;
  EW_TRY(ExpressionPtr first, ParseNot());
  if (!IsName("and")) return first;
  Logical node{true, {}};
  node.operands.push_back(std::move(first));
  while (TakeName("and")) {
    EW_TRY(ExpressionPtr operand, ParseNot());
    node.operands.push_back(std::move(operand));
  }
  return MakeExpression(line, std::move(node));
}

Result<ExpressionPtr> ExpressionParser::ParseNot() {
  if (!IsName("not")) return ParseComparison();
  const Level level(&depth_);
  EW_TRY(CheckDepth());
  const uint32_t line = Take().line;
  EW_TRY(ExpressionPtr operand, ParseNot());
  return MakeExpression(line, Not{std::move(operand)});
}

Result<ExpressionPtr> ExpressionParser::ParseComparison() {
  const uint32_t line = Peek().line;
  EW_TRY(ExpressionPtr first, ParseBinary(0));
  Comparison node{nullptr, {}};
  while (true) {
    std::optional<Operator> op = OperatorOf(Peek(), kComparisonLevel);
    if (op) {
      ++position_;
    } else if (TakeName("in")) {
      op = Operator::kIn;
    } else if (IsName("not") && tokens_[position_ + 1].kind == TokenKind::kName &&
               tokens_[position_ + 1].text == "in") {
      position_ += 2;
      op = Operator::kNotIn;
    } else {
      break;
    }
    EW_TRY(ExpressionPtr operand, ParseBinary(0));
    node.rest.emplace_back(*op, std::move(operand));
  }
  if (node.rest.empty()) return first;
  node.first = std::move(first);
  return MakeExpression(line, std::move(node));
}

// Level 0 binds weakest: + -, then ~, then * / // %, then **; all of them from left to right.
Result<ExpressionPtr> ExpressionParser::ParseBinary(int level) {
  if (level == kLevels) return ParseUnary(true);
  const uint32_t line = Peek().line;
  EW_TRY(ExpressionPtr first, ParseBinary(level + 1));
  Binary node{nullptr, {}};
  for (auto op = OperatorOf(Peek(), level); op; op = OperatorOf(Peek(), level)) {
    ++position_;
    EW_TRY(ExpressionPtr operand, ParseBinary(level + 1));
    node.rest.emplace_back(*op, std::move(operand));
  }
  if (node.rest.empty()) return first;
  node.first = std::move(first);
  return MakeExpression(line, std::move(node));
}

Result<ExpressionPtr> ExpressionParser::ParseUnary(bool with_filters) {
  const Level level(&depth_);
  EW_TRY(CheckDepth());
  const uint32_t line = Peek().line;
  ExpressionPtr node;
  if (IsOperator("-") || IsOperator("+")) {
    const bool negative = Take().text == "-";
    EW_TRY(ExpressionPtr operand, ParseUnary(false));
    node = MakeExpression(line, Sign{negative, std::move(operand)});
  } else {
    EW_TRY(node, ParsePrimary());
  }
  EW_TRY(node, ParsePostfix(std::move(node)));
  int chained = 0;  // each link nests the tree by one
  while (with_filters) {
    if (++chained + depth_ > max_depth_)
      return SyntaxError(Peek(), Format("nested deeper than %d", max_depth_));
    if (TakeOperator("|")) {
      EW_TRY(node, ParseFilter(std::move(node)));
    } else if (TakeName("is")) {
      EW_TRY(node, ParseTest(std::move(node)));
    } else if (IsOperator("(")) {
      EW_TRY(ArgumentList arguments, ParseArguments());
      node = MakeExpression(line, Call{std::move(node), std::move(arguments)});
    } else {
      break;
    }
  }
  return node;
}

Result<ExpressionPtr> ExpressionParser::ParsePostfix(ExpressionPtr object) {
  for (int chained = depth_;; ++chained) {
    if (chained > max_depth_)
      return SyntaxError(Peek(), Format("nested deeper than %d", max_depth_));
    const uint32_t line = Peek().line;
    if (TakeOperator(".")) {
      if (Peek().kind == TokenKind::kInteger) {
        EW_TRY(ExpressionPtr index, ParseNumber());
        object = MakeExpression(line, Subscript{std::move(object), std::move(index)});
      } else {
        EW_TRY(std::string name, ExpectName("the name of a member"));
        object = MakeExpression(line, Member{std::move(object), std::move(name)});
      }
    } else if (IsOperator("[")) {
      EW_TRY(object, ParseSubscript(std::move(object)));
    } else if (IsOperator("(")) {
      EW_TRY(ArgumentList arguments, ParseArguments());
      object = MakeExpression(line, Call{std::move(object), std::move(arguments)});
    } else {
      return object;
    }
  }
}

Result<ExpressionPtr> ExpressionParser::ParseSubscript(ExpressionPtr object) {
  const uint32_t line = Take().line;
  std::array<ExpressionPtr, 3> bounds;
  size_t colons = 0;
  while (!IsOperator("]")) {
    if (TakeOperator(":")) {
      if (++colons > 2) return Unexpected("']'");
    } else if (bounds[colons]) {
      return Unexpected("']'");
    } else {
      EW_TRY(bounds[colons], ParseExpression());
    }
  }
  if (colons == 0 && !bounds[0]) return Unexpected("an index");
  ++position_;
  if (colons == 0) return MakeExpression(line, Subscript{std::move(object), std::move(bounds[0])});
  return MakeExpression(line, Slice{std::move(object), std::move(bounds[0]), std::move(bounds[1]),
                                    std::move(bounds[2])});
}

Result<ArgumentList> ExpressionParser::ParseArguments() {
  EW_TRY(ExpectOperator("("));
  ArgumentList arguments;
  while (!TakeOperator(")")) {
    if (!arguments.empty()) {
      EW_TRY(ExpectOperator(","));
      if (TakeOperator(")")) break;
    }
    Argument argument{Argument::Kind::kPositional, {}, nullptr};
    const Token& next = tokens_[position_ + (Peek().kind == TokenKind::kEnd ? 0 : 1)];
    if (TakeOperator("*")) {
      argument.kind = Argument::Kind::kSpread;
    } else if (TakeOperator("**")) {
      argument.kind = Argument::Kind::kKeywordSpread;
    } else if (Peek().kind == TokenKind::kName && next.kind == TokenKind::kOperator &&
               next.text == "=") {
      argument.kind = Argument::Kind::kKeyword;
      argument.keyword = Take().text;
      ++position_;
    }
    EW_TRY(argument.value, ParseExpression());
    arguments.push_back(std::move(argument));
  }
  return arguments;
}

Result<ExpressionPtr> ExpressionParser::ParseFilter(ExpressionPtr operand) {
  const Token token = Peek();
  EW_TRY(const std::string name, ExpectName("the name of a filter"));
  const FilterEntry* filter = FindFilter(name);
  if (!filter) {
    return MakeError(Code::kUnsupported, "chat template: line %u, column %u: the filter %s",
                     token.line, token.column, Quote(name).c_str());
  }
  ArgumentList arguments;
  if (IsOperator("(")) {
    EW_TRY(arguments, ParseArguments());
  }
  return MakeExpression(token.line, FilterUse{std::move(operand), filter, std::move(arguments)});
}

Result<ExpressionPtr> ExpressionParser::ParseTest(ExpressionPtr operand) {
  const bool negated = TakeName("not");
  const Token token = Peek();
  EW_TRY(const std::string name, ExpectName("the name of a test"));
  const TestEntry* test = FindTest(name);
  if (!test) {
    return MakeError(Code::kUnsupported, "chat template: line %u, column %u: the test %s",
                     token.line, token.column, Quote(name).c_str());
  }
  ArgumentList arguments;
  const TokenKind kind = Peek().kind;
  const bool literal = kind == TokenKind::kString || kind == TokenKind::kInteger ||
                       kind == TokenKind::kFloat || IsOperator("[") || IsOperator("{");
  const bool word = kind == TokenKind::kName && !IsName("else") && !IsName("or") && !IsName("and");
  if (IsOperator("(")) {
    EW_TRY(arguments, ParseArguments());
  } else if (IsName("is")) {
    return SyntaxError(Peek(), "two tests with 'is' in a row");
  } else if ((literal || word) && test->takes_argument) {
    EW_TRY(ExpressionPtr argument, ParsePrimary());
    EW_TRY(argument, ParsePostfix(std::move(argument)));
    arguments.push_back({Argument::Kind::kPositional, {}, std::move(argument)});
  }
  return MakeExpression(token.line,
                        TestUse{std::move(operand), test, std::move(arguments), negated});
}

Result<ExpressionPtr> ExpressionParser::ParsePrimary() {
  const Level level(&depth_);
  EW_TRY(CheckDepth());
  const Token& token = Peek();
  const uint32_t line = token.line;
  switch (token.kind) {
    case TokenKind::kName:
      return ParseName();
    case TokenKind::kString: {
      std::string text;
      while (Peek().kind == TokenKind::kString) text += Take().text;
      return MakeExpression(line, Constant{Value::String(text)});
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return ParseNumber();
    default:
      break;
  }
  if (TakeOperator("(")) {
    if (TakeOperator(")")) return MakeExpression(line, ListLiteral{{}, true});
    EW_TRY(ExpressionPtr inner, ParseTuple(true));
    EW_TRY(ExpectOperator(")"));
    return inner;
  }
  if (TakeOperator("[")) {
    ListLiteral list{{}, false};
    while (!TakeOperator("]")) {
      if (!list.items.empty()) {
        EW_TRY(ExpectOperator(","));
        if (TakeOperator("]")) break;
      }
      EW_TRY(ExpressionPtr item, ParseExpression());
      list.items.push_back(std::move(item));
    }
    return MakeExpression(line, std::move(list));
  }
  if (TakeOperator("{")) return ParseDict();
  return Unexpected("an expression");
}

Result<ExpressionPtr> ExpressionParser::ParseDict() {
  const uint32_t line = Peek().line;
  DictLiteral dict;
  while (!TakeOperator("}")) {
    if (!dict.entries.empty()) {
      EW_TRY(ExpectOperator(","));
      if (TakeOperator("}")) break;
    }
    EW_TRY(ExpressionPtr key, ParseExpression());
    EW_TRY(ExpectOperator(":"));
    EW_TRY(ExpressionPtr value, ParseExpression());
    dict.entries.emplace_back(std::move(key), std::move(value));
  }
  return MakeExpression(line, std::move(dict));
}

Result<ExpressionPtr> ExpressionParser::ParseName() {
  const Token token = Take();
  const std::string& name = token.text;
  if (name == "true" || name == "True")
    return MakeExpression(token.line, Constant{Value::Bool(true)});
  if (name == "false" || name == "False")
    return MakeExpression(token.line, Constant{Value::Bool(false)});
  if (name == "none" || name == "None") return MakeExpression(token.line, Constant{Value::None()});
  uses_varargs_ |= name == "varargs";
  uses_kwargs_ |= name == "kwargs";
  return MakeExpression(token.line, Name{name});
}

Result<ExpressionPtr> ExpressionParser::ParseNumber() {
  const Token token = Take();
  if (token.kind == TokenKind::kInteger) {
    const Result<int64_t> value = ParseInt(token.text);
    if (!value) return SyntaxError(token, "an integer out of range: " + Quote(token.text));
    return MakeExpression(token.line, Constant{Value::Int(*value)});
  }
  const Result<double> value = ParseDouble(token.text);
  if (!value) return SyntaxError(token, "a number out of range: " + Quote(token.text));
  return MakeExpression(token.line, Constant{Value::Float(*value)});
}

}  // namespace edgewise::jinja
