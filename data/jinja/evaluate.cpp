// What each expression's value is.
#include "data/jinja/nodes.h"

namespace drover::jinja {

Arguments CallArguments::evaluate(Interpreter& run) const {
  Arguments values;
  for (const ExpressionPtr& argument : positional) values.positional.push_back(run.evaluate(*argument));
  for (const auto& [name, argument] : named) values.named.emplace_back(name, run.evaluate(*argument));
  return values;
}

Value Name::evaluate(Interpreter& run) const {
  const Value* value = run.scope()->find(name);
  return value != nullptr ? *value : Value(Undefined{name});
}

Value ListOf::evaluate(Interpreter& run) const {
  List list{{}, tuple};
  for (const ExpressionPtr& item : items) list.items.push_back(run.evaluate(*item));
  return list;
}

Value DictOf::evaluate(Interpreter& run) const {
  Dict dict;
  for (const auto& [key, item] : items) {
    const Value name = run.evaluate(*key);
    dict.set(name, run.evaluate(*item));
  }
  return dict;
}

Value Attribute::evaluate(Interpreter& run) const { return attribute_of(run.evaluate(*of), name); }

Value Item::evaluate(Interpreter& run) const {
  const Value value = run.evaluate(*of);
  return item_of(value, run.evaluate(*index));
}

Value Slice::evaluate(Interpreter& run) const {
  const Value value = run.evaluate(*of);
  std::array<std::optional<int64_t>, 3> parts;
  const std::array<const Expression*, 3> expressions{begin.get(), end.get(), step.get()};
  for (size_t i = 0; i < 3; ++i) {
    if (expressions[i] == nullptr) continue;
    const Value part = run.evaluate(*expressions[i]);
    if (part.none()) continue;
    parts[i] = part.integer();
    if (!parts[i]) throw Refusal(fmt::format("a slice is made of integers, not of {}", kind(part)));
  }
  return slice_of(value, parts);
}

Value CallOf::evaluate(Interpreter& run) const {
  Value function;
  std::string name = "it";
  if (const auto* attribute = dynamic_cast<const Attribute*>(callee.get())) {
    const Value value = run.evaluate(*attribute->of);
    return call_method(run, value, attribute->name, arguments.evaluate(run));
  }
  if (const auto* named = dynamic_cast<const Name*>(callee.get())) name = named->name;
  function = run.evaluate(*callee);
  if (function.callable() == nullptr)
    throw Refusal(fmt::format("{} is {}, which cannot be called", name, kind(function)));
  return function.callable()->call(run, arguments.evaluate(run));
}

Value FilterCall::apply(Interpreter& run, const Value& input) const {
  if (filter == nullptr) throw Refusal(fmt::format("the filter {} is not supported", name));
  return filter->apply(run, input, arguments.evaluate(run));
}

Value Filtered::evaluate(Interpreter& run) const { return call.apply(run, run.evaluate(*input)); }

Value Tested::evaluate(Interpreter& run) const {
  const Value value = run.evaluate(*input);
  if (test == nullptr) throw Refusal(fmt::format("the test {} is not supported", name));
  return test->holds(value, arguments.evaluate(run)) != negated;
}

Value Unary::evaluate(Interpreter& run) const {
  const Value value = run.evaluate(*operand);
  if (kind == Kind::negation) return !truth(value);
  const Value sign = int64_t{kind == Kind::minus ? -1 : 1};
  if (!value.number()) throw Refusal(fmt::format("{} has no sign", jinja::kind(value)));
  return combine(run, BinaryOperator::multiply, sign, value);
}

Value Binary::evaluate(Interpreter& run) const {
  const Value a = run.evaluate(*left);
  return combine(run, which, a, run.evaluate(*right));
}

Value Logical::evaluate(Interpreter& run) const {
  Value value = run.evaluate(*left);
  return truth(value) == conjunction ? run.evaluate(*right) : value;
}

namespace {

bool compared(Comparison::Kind kind, const Value& a, const Value& b) {
  using Kind = Comparison::Kind;
  switch (kind) {
    case Kind::equal: return equal(a, b);
    case Kind::unequal: return !equal(a, b);
    case Kind::less: return order(a, b) < 0;
    case Kind::less_equal: return order(a, b) <= 0;
    case Kind::greater: return order(a, b) > 0;
    case Kind::greater_equal: return order(a, b) >= 0;
    case Kind::in: return contains(b, a);
    default: return !contains(b, a);
  }
}

}  // namespace

Value Comparison::evaluate(Interpreter& run) const {
  Value left = run.evaluate(*first);
  for (const auto& [kind, expression] : rest) {
    const Value right = run.evaluate(*expression);
    if (!compared(kind, left, right)) return false;
    left = right;
  }
  return true;
}

Value Conditional::evaluate(Interpreter& run) const {
  if (truth(run.evaluate(*condition))) return run.evaluate(*yes);
  return no ? run.evaluate(*no) : Value(Undefined{"the value of an if without else"});
}

}  // namespace drover::jinja
