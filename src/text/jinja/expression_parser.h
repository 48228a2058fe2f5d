// Recursive descent over the expressions of a template; the statements follow in parser.cc.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"
#include "text/jinja/limits.h"

namespace edgewise::jinja {

class ExpressionParser {
 public:
  ExpressionParser(std::vector<Token> tokens, const JinjaLimits& limits)
      : tokens_(std::move(tokens)), max_depth_(limits.max_depth) {}

 protected:
  // Counts one level of nesting while it lives.
  class Level {
   public:
    explicit Level(int* depth) : depth_(depth) { ++*depth_; }
    ~Level() { --*depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    int* depth_;
  };

  const Token& Peek() const { return tokens_[position_]; }
  Token Take() { return tokens_[position_++]; }
  bool IsOperator(std::string_view text) const {
    return Peek().kind == TokenKind::kOperator && Peek().text == text;
  }
  bool IsName(std::string_view text) const {
    return Peek().kind == TokenKind::kName && Peek().text == text;
  }
  bool TakeOperator(std::string_view text);
  bool TakeName(std::string_view text);
  Status ExpectOperator(std::string_view text);
  Result<std::string> ExpectName(std::string_view what);
  Status CheckDepth() const;
  Error Unexpected(std::string_view wanted) const;

  // A conditional expression: `a if b else c`.
  Result<ExpressionPtr> ParseExpression();
  // One expression, or several with commas between them: a tuple.
  Result<ExpressionPtr> ParseTuple(bool conditional);
  // What follows a primary expression: members, subscripts, calls.
  Result<ExpressionPtr> ParsePostfix(ExpressionPtr object);
  Result<ExpressionPtr> ParsePrimary();
  Result<ExpressionPtr> ParseUnary(bool with_filters);
  // After the bar: the filter's name and arguments.
  Result<ExpressionPtr> ParseFilter(ExpressionPtr operand);
  Result<ArgumentList> ParseArguments();
  Result<ExpressionPtr> ParseOr();

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int max_depth_;
  int depth_ = 0;
  bool uses_varargs_ = false;  // seen in the macro being parsed
  bool uses_kwargs_ = false;

 private:
  Result<ExpressionPtr> ParseAnd();
  Result<ExpressionPtr> ParseNot();
  Result<ExpressionPtr> ParseComparison();
  Result<ExpressionPtr> ParseBinary(int level);
  Result<ExpressionPtr> ParseTest(ExpressionPtr operand);
  Result<ExpressionPtr> ParseSubscript(ExpressionPtr object);
  Result<ExpressionPtr> ParseDict();
  Result<ExpressionPtr> ParseName();
  Result<ExpressionPtr> ParseNumber();
  bool AtTupleEnd() const;
};

// Makes a node of the tree.
template <class Node>
ExpressionPtr MakeExpression(uint32_t line, Node node) {
  return std::make_unique<Expression>(Expression{line, std::move(node)});
}

}  // namespace edgewise::jinja
