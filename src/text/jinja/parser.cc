#include "text/jinja/parser.h"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "base/strings.h"
#include "text/jinja/expression_parser.h"

namespace edgewise::jinja {
namespace {

template <class Node>
StatementPtr MakeStatement(uint32_t line, Node node) {
  return std::make_unique<Statement>(Statement{line, std::move(node)});
}

class TemplateParser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Result<Block> Run() { return ParseBlock({}); }

 private:
  // Parses up to a block tag whose first word is one of `ends` (that word is taken, and left in
  // end_word_), or, when there are none, to the end of the template.
  Result<Block> ParseBlock(std::initializer_list<std::string_view> ends) {
    const Level level(&depth_);
    EW_TRY(CheckDepth());
    Block block;
    while (true) {
      const Token& token = Peek();
      const uint32_t line = token.line;
      if (token.kind == TokenKind::kEnd) {
        if (ends.size() == 0) return block;
        return SyntaxError(token, "'{% " + std::string(*(ends.end() - 1)) + " %}' is missing");
      }
      if (token.kind == TokenKind::kText) {
        block.push_back(MakeStatement(line, TextOutput{Value::String(Take().text)}));
      } else if (token.kind == TokenKind::kOutputBegin) {
        ++position_;
        EW_TRY(ExpressionPtr value, ParseTuple(true));
        if (Peek().kind != TokenKind::kOutputEnd) return Unexpected("'}}'");
        ++position_;
        block.push_back(MakeStatement(line, Output{std::move(value)}));
      } else {
        ++position_;
        const Token word = Peek();
        EW_TRY(end_word_, ExpectName("the name of a statement"));
        if (std::find(ends.begin(), ends.end(), end_word_) != ends.end()) return block;
        EW_TRY(ParseStatement(word, &block));
      }
    }
  }

  Status ParseStatement(const Token& word, Block* block) {
    const std::string& name = word.text;
    if (name == "generation") return ParseGeneration(block);
    EW_TRY(StatementPtr statement, ParseNamed(word));
    block->push_back(std::move(statement));
    return Ok{};
  }

  Result<StatementPtr> ParseNamed(const Token& word) {
    const std::string& name = word.text;
    if (name == "if") return ParseIf(word.line);
    if (name == "for") return ParseFor(word.line);
    if (name == "set") return ParseSet(word.line);
    if (name == "macro") return ParseMacro(word.line);
    if (name == "call") return ParseCall(word.line);
    if (name == "filter") return ParseFilterBlock(word.line);
    if (name == "with") return ParseWith(word.line);
    if (name == "break" || name == "continue") {
      if (loops_ == 0) return SyntaxError(word, "'" + name + "' outside a loop");
      EW_TRY(CloseTag());
      return name == "break" ? MakeStatement(word.line, Break{})
                             : MakeStatement(word.line, Continue{});
    }
    static constexpr std::array<std::string_view, 13> kEnds = {
        "endif",     "elif",    "else",   "endfor",        "endset",   "endmacro",     "endcall",
        "endfilter", "endwith", "endraw", "endgeneration", "endblock", "endautoescape"};
    if (std::find(kEnds.begin(), kEnds.end(), name) != kEnds.end()) {
      return SyntaxError(word, "unexpected '{% " + name + " %}'");
    }
    return MakeError(Code::kUnsupported, "chat template: line %u, column %u: the statement %s",
                     word.line, word.column, Quote(name).c_str());
  }

  Status CloseTag() {
    if (Peek().kind != TokenKind::kBlockEnd) return Unexpected("'%}'");
    ++position_;
    return Ok{};
  }

  // Marks the assistant's turns for training; it renders as its body, in a scope of its own.
  Status ParseGeneration(Block* block) {
    const uint32_t line = Peek().line;
    EW_TRY(CloseTag());
    EW_TRY(Block body, ParseBlock({"endgeneration"}));
    EW_TRY(CloseTag());
    block->push_back(MakeStatement(line, With{{}, std::move(body)}));
    return Ok{};
  }

  Result<StatementPtr> ParseIf(uint32_t line) {
    If node;
    while (true) {
      EW_TRY(ExpressionPtr test, ParseTuple(false));
      EW_TRY(CloseTag());
      EW_TRY(Block body, ParseBlock({"elif", "else", "endif"}));
      node.branches.emplace_back(std::move(test), std::move(body));
      if (end_word_ == "elif") continue;
      if (end_word_ == "else") {
        EW_TRY(CloseTag());
        EW_TRY(node.otherwise, ParseBlock({"endif"}));
      }
      EW_TRY(CloseTag());
      return MakeStatement(line, std::move(node));
    }
  }

  Result<StatementPtr> ParseFor(uint32_t line) {
    For node;
    EW_TRY(node.target, ParseTarget(false));
    if (!TakeName("in")) return Unexpected("'in'");
    EW_TRY(node.iterable, ParseTuple(false));
    if (TakeName("if")) {
      EW_TRY(node.filter, ParseExpression());
    }
    if (IsName("recursive")) {
      return MakeError(Code::kUnsupported, "chat template: line %u: a recursive loop", Peek().line);
    }
    EW_TRY(CloseTag());
    ++loops_;
    EW_TRY(node.body, ParseBlock({"else", "endfor"}));
    --loops_;
    if (end_word_ == "else") {
      EW_TRY(CloseTag());
      EW_TRY(node.otherwise, ParseBlock({"endfor"}));
    }
    EW_TRY(CloseTag());
    return MakeStatement(line, std::move(node));
  }

  Result<Target> ParseOneTarget(bool attributes) {
    const Level level(&depth_);
    EW_TRY(CheckDepth());
    if (TakeOperator("(")) {
      EW_TRY(Target inner, ParseTarget(attributes));
      EW_TRY(ExpectOperator(")"));
      return inner;
    }
    Target target;
    const Token token = Peek();
    EW_TRY(target.name, ExpectName("the name of a variable"));
    static constexpr std::array<std::string_view, 9> kReserved = {
        "true", "false", "none", "True", "False", "None", "not", "in", "if"};
    if (std::find(kReserved.begin(), kReserved.end(), target.name) != kReserved.end()) {
      return SyntaxError(token, "cannot assign to " + Quote(target.name));
    }
    if (attributes && TakeOperator(".")) {
      EW_TRY(target.attribute, ExpectName("the name of an attribute"));
    }
    return target;
  }

  Result<Target> ParseTarget(bool attributes) {
    EW_TRY(Target first, ParseOneTarget(attributes));
    if (!IsOperator(",")) return first;
    Target tuple;
    tuple.targets.push_back(std::move(first));
    while (TakeOperator(",")) {
      if (Peek().kind != TokenKind::kName && !IsOperator("(")) break;
      if (IsName("in")) break;
      EW_TRY(Target next, ParseOneTarget(attributes));
      tuple.targets.push_back(std::move(next));
    }
    return tuple;
  }

  Result<StatementPtr> ParseSet(uint32_t line) {
    EW_TRY(Target target, ParseTarget(true));
    if (TakeOperator("=")) {
      EW_TRY(ExpressionPtr value, ParseTuple(true));
      EW_TRY(CloseTag());
      return MakeStatement(line, Set{std::move(target), std::move(value)});
    }
    SetBlock node{std::move(target), {}, {}};
    if (TakeOperator("|")) {
      EW_TRY(node.filters, ParseFilters());
    }
    EW_TRY(CloseTag());
    EW_TRY(node.body, ParseCaptured("endset"));
    return MakeStatement(line, std::move(node));
  }

  // Parses a body whose output becomes a value, and its end; `break` cannot leave it.
  Result<Block> ParseCaptured(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    EW_TRY(Block body, ParseBlock({end}));
    loops_ = loops;
    EW_TRY(CloseTag());
    return body;
  }

  Result<std::vector<ExpressionPtr>> ParseFilters() {
    std::vector<ExpressionPtr> filters;
    do {
      EW_TRY(ExpressionPtr filter, ParseFilter(nullptr));
      filters.push_back(std::move(filter));
    } while (TakeOperator("|"));
    return filters;
  }

  Result<StatementPtr> ParseFilterBlock(uint32_t line) {
    FilterBlock node;
    EW_TRY(node.filters, ParseFilters());
    EW_TRY(CloseTag());
    EW_TRY(node.body, ParseCaptured("endfilter"));
    return MakeStatement(line, std::move(node));
  }

  Result<std::vector<Parameter>> ParseParameters() {
    std::vector<Parameter> parameters;
    EW_TRY(ExpectOperator("("));
    while (!TakeOperator(")")) {
      if (!parameters.empty()) {
        EW_TRY(ExpectOperator(","));
        if (TakeOperator(")")) break;
      }
      Parameter parameter;
      EW_TRY(parameter.name, ExpectName("the name of a parameter"));
      if (TakeOperator("=")) {
        EW_TRY(parameter.fallback, ParseExpression());
      } else if (!parameters.empty() && parameters.back().fallback) {
        return Unexpected("'=' (a parameter without a default after one with a default)");
      }
      parameters.push_back(std::move(parameter));
    }
    return parameters;
  }

  // Parses the rest of a macro's or call block's tag, its body and end. A macro's body is no part
  // of the loop around it.
  Status ParseMacroBody(std::string_view end, MacroDefinition* definition) {
    EW_TRY(CloseTag());
    const bool varargs = std::exchange(uses_varargs_, false),
               kwargs = std::exchange(uses_kwargs_, false);
    EW_TRY(definition->body, ParseCaptured(end));
    definition->uses_varargs = std::exchange(uses_varargs_, varargs);
    definition->uses_kwargs = std::exchange(uses_kwargs_, kwargs);
    return Ok{};
  }

  Result<StatementPtr> ParseMacro(uint32_t line) {
    Macro node;
    EW_TRY(node.definition.name, ExpectName("the name of the macro"));
    EW_TRY(node.definition.parameters, ParseParameters());
    EW_TRY(ParseMacroBody("endmacro", &node.definition));
    return MakeStatement(line, std::move(node));
  }

  Result<StatementPtr> ParseCall(uint32_t line) {
    CallBlock node;
    node.caller.name = "caller";
    if (IsOperator("(")) {
      EW_TRY(node.caller.parameters, ParseParameters());
    }
    const Token token = Peek();
    EW_TRY(node.call, ParseExpression());
    if (!std::holds_alternative<Call>(node.call->node))
      return SyntaxError(token, "expected the call of a macro");
    EW_TRY(ParseMacroBody("endcall", &node.caller));
    return MakeStatement(line, std::move(node));
  }

  Result<StatementPtr> ParseWith(uint32_t line) {
    With node;
    while (Peek().kind != TokenKind::kBlockEnd) {
      if (!node.bindings.empty()) EW_TRY(ExpectOperator(","));
      EW_TRY(Target target, ParseOneTarget(false));
      EW_TRY(ExpectOperator("="));
      EW_TRY(ExpressionPtr value, ParseExpression());
      node.bindings.emplace_back(std::move(target), std::move(value));
    }
    EW_TRY(CloseTag());
    EW_TRY(node.body, ParseBlock({"endwith"}));
    EW_TRY(CloseTag());
    return MakeStatement(line, std::move(node));
  }

  std::string end_word_;
  int loops_ = 0;
};

}  // namespace

Result<Block> ParseTemplate(std::string_view source, const JinjaLimits& limits) {
  if (source.size() > limits.max_template_bytes) {
    return MakeError(Code::kBadData, "chat template: %zu bytes, more than the limit of %llu",
                     source.size(), static_cast<unsigned long long>(limits.max_template_bytes));
  }
  if (!IsUtf8(source)) return MakeError(Code::kBadData, "chat template: not UTF-8 text");
  EW_TRY(std::vector<Token> tokens, Tokenize(source));
  return TemplateParser(std::move(tokens), limits).Run();
}

}  // namespace edgewise::jinja
