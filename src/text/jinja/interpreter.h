// Walks a template's syntax tree.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/jinja/ast.h"
#include "text/jinja/runtime.h"

namespace edgewise::jinja {

class Interpreter {
 public:
  explicit Interpreter(Runtime& runtime) : runtime_(runtime) {}

  // Renders a template with the variables of `scope`. Errors: as ChatTemplate::Render.
  Result<Text> Run(const Block& block, Scope* scope);

 private:
  enum class Flow : uint8_t { kNormal, kBreak, kContinue };
  class Level;

  // Statements, in interpreter.cc. Each writes to *out_.
  Result<Flow> Execute(const Block& block, Scope* scope);
  Result<Flow> ExecuteOne(const Statement& statement, Scope* scope);
  Result<Flow> Do(const TextOutput& node, Scope* scope);
  Result<Flow> Do(const Output& node, Scope* scope);
  Result<Flow> Do(const If& node, Scope* scope);
  Result<Flow> Do(const For& node, Scope* scope);
  Result<Flow> Do(const Set& node, Scope* scope);
  Result<Flow> Do(const SetBlock& node, Scope* scope);
  Result<Flow> Do(const FilterBlock& node, Scope* scope);
  Result<Flow> Do(const Macro& node, Scope* scope);
  Result<Flow> Do(const CallBlock& node, Scope* scope);
  Result<Flow> Do(const With& node, Scope* scope);
  Result<Flow> Do(const Break&, Scope*) { return Flow::kBreak; }
  Result<Flow> Do(const Continue&, Scope*) { return Flow::kContinue; }
  Error AtLine(Error error, uint32_t line);
  Status CheckDepth() const;
  Status Write(const Text& text);
  Result<Value> Capture(const Block& block, Scope* scope);
  Result<Value> ApplyFilters(const std::vector<ExpressionPtr>& filters, Value value, Scope* scope);
  Status Assign(const Target& target, const Value& value, Scope* scope);
  Result<Loop*> StartLoop(const For& node, Scope* scope);
  Result<Value> CallMacro(const Callable& callable, const Arguments& arguments);
  Status BindParameters(const MacroDefinition& macro, const Arguments& arguments, Scope* scope);

  // Expressions, in evaluate.cc.
  Result<Value> Evaluate(const Expression& expression, Scope* scope);
  Result<Value> Get(const Constant& node, Scope* scope);
  Result<Value> Get(const Name& node, Scope* scope);
  Result<Value> Get(const ListLiteral& node, Scope* scope);
  Result<Value> Get(const DictLiteral& node, Scope* scope);
  Result<Value> Get(const Not& node, Scope* scope);
  Result<Value> Get(const Sign& node, Scope* scope);
  Result<Value> Get(const Binary& node, Scope* scope);
  Result<Value> Get(const Comparison& node, Scope* scope);
  Result<Value> Get(const Logical& node, Scope* scope);
  Result<Value> Get(const Conditional& node, Scope* scope);
  Result<Value> Get(const Member& node, Scope* scope);
  Result<Value> Get(const Subscript& node, Scope* scope);
  Result<Value> Get(const Slice& node, Scope* scope);
  Result<Value> Get(const Call& node, Scope* scope);
  Result<Value> Get(const FilterUse& node, Scope* scope);
  Result<Value> Get(const TestUse& node, Scope* scope);
  Result<Value> ApplyFilter(const FilterUse& node, const Value& operand, Scope* scope);
  Result<Arguments> EvaluateArguments(const ArgumentList& list, Scope* scope);
  Result<Value> CallValue(const Value& callee, const Arguments& arguments);

  Runtime& runtime_;
  Text* out_ = nullptr;
  // A macro that calls itself nests several nodes per call, so evaluation may go deeper than the
  // template is written.
  static constexpr int kDepthFactor = 16;
  int depth_ = 0;         // of nested evaluation
  bool located_ = false;  // the error on its way out names its line
  int macro_depth_ = 0;   // of nested macro calls
};

// Applies an arithmetic operator. Errors: kBadData (types, division by zero, overflow).
Result<Value> Arithmetic(Runtime& runtime, Operator op, const Value& left, const Value& right);
// Applies a comparison operator. Errors: kBadData (types).
Result<bool> Compare(Runtime& runtime, Operator op, const Value& left, const Value& right);
// Returns value[index], undefined when there is no such element. Errors: kBadData (an undefined
// value).
Result<Value> ElementOf(Runtime& runtime, const Value& value, const Value& index);
// Returns value.name, undefined when there is no such member. Errors: kBadData (an undefined
// value).
Result<Value> MemberOf(Runtime& runtime, const Value& value, std::string_view name);

// Counts one level of nested evaluation while it lives.
class Interpreter::Level {
 public:
  explicit Level(int* depth) : depth_(depth) { ++*depth_; }
  ~Level() { --*depth_; }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

 private:
  int* depth_;
};

}  // namespace edgewise::jinja
