// A template's syntax tree: expressions give values, statements write text. Each node does one construct of Jinja.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/jinja/interpreter.h"
#include "data/jinja/lexer.h"
#include "data/jinja/library.h"

namespace drover::jinja {

struct Expression {
  Place place;
  virtual ~Expression() = default;
  virtual Value evaluate(Interpreter& run) const = 0;
};
using ExpressionPtr = std::unique_ptr<Expression>;

struct Statement {
  Place place;
  virtual ~Statement() = default;
  virtual Flow execute(Interpreter& run) const = 0;
};
using Body = std::vector<std::unique_ptr<Statement>>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  Arguments evaluate(Interpreter& run) const;
};

struct FilterCall {
  std::string name;
  const Filter* filter = nullptr;  // null: not supported
  CallArguments arguments;
  Value apply(Interpreter& run, const Value& input) const;
};

struct Literal : Expression {
  Value value;
  Value evaluate(Interpreter&) const override { return value; }
};
struct Name : Expression {
  std::string name;
  Value evaluate(Interpreter& run) const override;
};
struct ListOf : Expression {
  std::vector<ExpressionPtr> items;
  bool tuple = false;
  Value evaluate(Interpreter& run) const override;
};
struct DictOf : Expression {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items;
  Value evaluate(Interpreter& run) const override;
};
struct Attribute : Expression {  // of.name
  ExpressionPtr of;
  std::string name;
  Value evaluate(Interpreter& run) const override;
};
struct Item : Expression {  // of[index]
  ExpressionPtr of, index;
  Value evaluate(Interpreter& run) const override;
};
struct Slice : Expression {            // of[begin:end:step]
  ExpressionPtr of, begin, end, step;  // all but `of` may be absent
  Value evaluate(Interpreter& run) const override;
};
struct CallOf : Expression {
  ExpressionPtr callee;
  CallArguments arguments;
  Value evaluate(Interpreter& run) const override;
};
struct Filtered : Expression {  // a filter that is not supported is refused where it is reached
  ExpressionPtr input;
  FilterCall call;
  Value evaluate(Interpreter& run) const override;
};
struct Tested : Expression {  // input is [not] test
  ExpressionPtr input;
  std::string name;
  const Test* test = nullptr;
  bool negated = false;
  CallArguments arguments;
  Value evaluate(Interpreter& run) const override;
};
struct Unary : Expression {
  enum class Kind : uint8_t { plus, minus, negation };
  Kind kind = Kind::plus;
  ExpressionPtr operand;
  Value evaluate(Interpreter& run) const override;
};
struct Binary : Expression {
  BinaryOperator which = BinaryOperator::add;
  ExpressionPtr left, right;
  Value evaluate(Interpreter& run) const override;
};
struct Logical : Expression {  // left and right; left or right: the operand that decides
  bool conjunction = false;
  ExpressionPtr left, right;
  Value evaluate(Interpreter& run) const override;
};
struct Comparison : Expression {  // first < second <= third …
  enum class Kind : uint8_t { equal, unequal, less, less_equal, greater, greater_equal, in, not_in };
  ExpressionPtr first;
  std::vector<std::pair<Kind, ExpressionPtr>> rest;
  Value evaluate(Interpreter& run) const override;
};
struct Conditional : Expression {  // yes if condition [else no]
  ExpressionPtr condition, yes, no;
  Value evaluate(Interpreter& run) const override;
};

// What an assignment or a loop sets: a name, a namespace's field, or several.
struct Target {
  std::string name, field;    // field: empty, or of the namespace `name`
  std::vector<Target> parts;  // of a tuple; then name is empty
  void assign(Interpreter& run, const Value& value) const;
};

struct Data : Statement {
  std::string text;
  Flow execute(Interpreter& run) const override;
};
struct Print : Statement {
  ExpressionPtr expression;
  Flow execute(Interpreter& run) const override;
};
struct If : Statement {
  std::vector<std::pair<ExpressionPtr, Body>> branches;
  Body otherwise;
  Flow execute(Interpreter& run) const override;
};
struct For : Statement {
  Target target;
  ExpressionPtr over, condition;  // condition may be absent
  Body body, otherwise;
  Flow execute(Interpreter& run) const override;
};
struct Set : Statement {
  Target target;
  ExpressionPtr value;
  Flow execute(Interpreter& run) const override;
};
struct SetBlock : Statement {  // {% set x | filters %}…{% endset %}
  Target target;
  std::vector<FilterCall> filters;
  Body body;
  Flow execute(Interpreter& run) const override;
};
struct FilterBlock : Statement {  // {% filter filters %}…{% endfilter %}
  std::vector<FilterCall> filters;
  Body body;
  Flow execute(Interpreter& run) const override;
};
struct Macro : Statement {
  std::string name;
  std::vector<std::pair<std::string, ExpressionPtr>> parameters;  // with a default, or none
  Body body;
  Flow execute(Interpreter& run) const override;
  Value call(Interpreter& run, const std::shared_ptr<Scope>& around, const Arguments& arguments) const;
};
struct Generation : Statement {
  Body body;
  Flow execute(Interpreter& run) const override;
};
struct LoopControl : Statement {
  Flow flow = Flow::next_statement;
  Flow execute(Interpreter&) const override { return flow; }
};

// The tree of a template's source. SyntaxError with the place for what is not Jinja, or is Jinja that is not supported.
Body parse(std::string_view source);

}  // namespace drover::jinja
