// What each statement does.
#include "data/jinja/nodes.h"

namespace drover::jinja {

void Target::assign(Interpreter& run, const Value& value) const {
  if (!parts.empty()) {
    const std::vector<Value> values = iterated(value);
    if (values.size() != parts.size())
      throw Refusal(fmt::format("{} values cannot be set to {} names", values.size(), parts.size()));
    for (size_t i = 0; i < parts.size(); ++i) parts[i].assign(run, values[i]);
    return;
  }
  if (field.empty()) return run.scope()->set(name, value);
  const Value* held = run.scope()->find(name);
  Namespace* space = held != nullptr ? held->space() : nullptr;
  if (space == nullptr) throw Refusal(fmt::format("{} is no namespace, so that its fields cannot be set", name));
  space->fields.set(written(field), value);
}

Flow Data::execute(Interpreter& run) const {
  run.write(Text(text));
  return Flow::next_statement;
}

Flow Print::execute(Interpreter& run) const {
  run.write(str(run.evaluate(*expression)));
  return Flow::next_statement;
}

Flow If::execute(Interpreter& run) const {
  for (const auto& [condition, body] : branches) {
    if (truth(run.evaluate(*condition))) return run.execute(body);
  }
  return run.execute(otherwise);
}

namespace {

Value loop_of(const std::vector<Value>& items, size_t i) {
  const auto n = static_cast<int64_t>(items.size()), at = static_cast<int64_t>(i);
  Dict loop;
  const auto add = [&](const char* name, Value value) { loop.items.emplace_back(written(name), std::move(value)); };
  add("index", at + 1);
  add("index0", at);
  add("first", at == 0);
  add("last", at + 1 == n);
  add("length", n);
  add("revindex", n - at);
  add("revindex0", n - at - 1);
  if (i > 0) add("previtem", items[i - 1]);
  if (i + 1 < items.size()) add("nextitem", items[i + 1]);
  return loop;
}

}  // namespace

Flow For::execute(Interpreter& run) const {
  const std::shared_ptr<Scope> around = run.scope();
  std::vector<Value> items = iterated(run.evaluate(*over));
  if (condition) {
    std::vector<Value> kept;
    for (const Value& item : items) {
      const Interpreter::Inside inside(run, around);
      target.assign(run, item);
      if (truth(run.evaluate(*condition))) kept.push_back(item);
    }
    items = std::move(kept);
  }
  if (items.empty()) {
    const Interpreter::Inside inside(run, around);
    return run.execute(otherwise);
  }
  for (size_t i = 0; i < items.size(); ++i) {
    const Interpreter::Inside inside(run, around);
    run.spend(1);
    run.scope()->set("loop", loop_of(items, i));
    target.assign(run, items[i]);
    if (run.execute(body) == Flow::break_loop) break;
  }
  return Flow::next_statement;
}

Flow Set::execute(Interpreter& run) const {
  target.assign(run, run.evaluate(*value));
  return Flow::next_statement;
}

namespace {

// What a body writes, within its own scope, through filters.
Value filtered(Interpreter& run, const Body& body, const std::vector<FilterCall>& filters, Flow& flow) {
  Value value;
  {
    const Interpreter::Inside inside(run, run.scope());
    value = run.captured(body, flow);
  }
  for (const FilterCall& filter : filters) value = filter.apply(run, value);
  return value;
}

}  // namespace

Flow SetBlock::execute(Interpreter& run) const {
  Flow flow = Flow::next_statement;
  target.assign(run, filtered(run, body, filters, flow));
  return flow;
}

Flow FilterBlock::execute(Interpreter& run) const {
  Flow flow = Flow::next_statement;
  run.write(str(filtered(run, body, filters, flow)));
  return flow;
}

Value Macro::call(Interpreter& run, const std::shared_ptr<Scope>& around, const Arguments& arguments) const {
  if (arguments.positional.size() > parameters.size())
    throw Refusal(fmt::format("the macro {} takes {} arguments", name, parameters.size()));
  const Interpreter::Inside inside(run, around);
  Scope& scope = *run.scope();
  for (size_t i = 0; i < arguments.positional.size(); ++i) scope.set(parameters[i].first, arguments.positional[i]);
  for (const auto& [argument, value] : arguments.named) {
    const auto known = [&](const auto& parameter) { return parameter.first == argument; };
    if (std::ranges::none_of(parameters, known))
      throw Refusal(fmt::format("the macro {} has no parameter {}", name, argument));
    if (std::ranges::any_of(scope.names, known))
      throw Refusal(fmt::format("the macro {} gets its parameter {} twice", name, argument));
    scope.set(argument, value);
  }
  for (const auto& [parameter, otherwise] : parameters) {
    const auto given = [&](const auto& named) { return named.first == parameter; };
    if (std::ranges::any_of(scope.names, given)) continue;
    scope.set(parameter, otherwise ? run.evaluate(*otherwise) : Value(Undefined{parameter}));
  }
  Flow flow = Flow::next_statement;
  return run.captured(body, flow);
}

Flow Macro::execute(Interpreter& run) const {
  // The scope holds the macro: if the macro held the scope too, neither would ever be freed.
  const std::weak_ptr<Scope> around = run.scope();
  run.scope()->set(name, Callable{name, [this, around](Interpreter& inner, const Arguments& arguments) {
                                    const std::shared_ptr<Scope> scope = around.lock();
                                    if (!scope) throw Refusal(fmt::format("the macro {} has left its loop", name));
                                    return call(inner, scope, arguments);
                                  }});
  return Flow::next_statement;
}

Flow Generation::execute(Interpreter& run) const {
  Flow flow = Flow::next_statement;
  Text text = run.captured(body, flow);
  text.mark_generated();
  run.write(text);
  return flow;
}

}  // namespace drover::jinja
