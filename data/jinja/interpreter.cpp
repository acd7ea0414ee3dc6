#include "data/jinja/interpreter.h"

#include <algorithm>

#include "data/jinja/nodes.h"

namespace drover::jinja {

namespace {

struct Deeper {
  Deeper(int& depth, int limit) : depth(depth) {
    if (++depth > limit) {
      --depth;
      throw Refusal(fmt::format("it is nested more than {} deep", limit));
    }
  }
  ~Deeper() { --depth; }
  int& depth;
};

}  // namespace

const Value* Scope::find(const std::string& name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->outer.get()) {
    const auto at = std::ranges::find(scope->names, name, [](const auto& named) { return named.first; });
    if (at != scope->names.end()) return &at->second;
  }
  return nullptr;
}

void Scope::set(const std::string& name, const Value& value) {
  const auto at = std::ranges::find(names, name, [](const auto& named) { return named.first; });
  if (at != names.end()) {
    at->second = value;
  } else {
    names.emplace_back(name, value);
  }
}

Interpreter::Interpreter(std::vector<std::pair<std::string, Value>> globals, const Limits& limits)
    : scope_(std::make_shared<Scope>()), limits_(limits), steps_(limits.steps) {
  scope_->names = std::move(globals);
}

Interpreter::~Interpreter() {
  for (const auto& space : spaces_) space->fields = {};
}

void Interpreter::keep(const std::shared_ptr<Namespace>& space) {
  spend(20);  // each stays until the end
  spaces_.push_back(space);
}

Value Interpreter::evaluate(const Expression& expression) {
  try {
    spend(1);
    const Deeper deeper(depth_, limits_.depth);
    return expression.evaluate(*this);
  } catch (const Refusal& refusal) {
    throw SyntaxError(expression.place, refusal.what());
  }
}

Flow Interpreter::execute(const Body& body) {
  for (const auto& statement : body) {
    try {
      spend(1);
      const Deeper deeper(depth_, limits_.depth);
      const Flow flow = statement->execute(*this);
      if (flow != Flow::next_statement) return flow;
    } catch (const Refusal& refusal) {
      throw SyntaxError(statement->place, refusal.what());
    }
  }
  return Flow::next_statement;
}

Text Interpreter::captured(const Body& body, Flow& flow) {
  Text text;
  Text* before = std::exchange(out_, &text);
  try {
    flow = execute(body);
  } catch (...) {
    out_ = before;
    throw;
  }
  out_ = before;
  return text;
}

void Interpreter::write(const Text& text) {
  check_size(out_->size() + text.size());
  out_->append(text);
}

void Interpreter::check_size(size_t bytes) const {
  if (bytes > limits_.output_bytes)
    throw Refusal(fmt::format("it makes a text of more than {} bytes", limits_.output_bytes));
}

void Interpreter::spend(int64_t steps) {
  steps_ -= steps;
  if (steps_ < 0) throw Refusal(fmt::format("it does not end after {} steps", limits_.steps));
}

Interpreter::Inside::Inside(Interpreter& run, std::shared_ptr<Scope> outer) : run_(run), before_(run.scope_) {
  run.scope_ = std::make_shared<Scope>();
  run.scope_->outer = std::move(outer);
}

Interpreter::Inside::~Inside() { run_.scope_ = std::move(before_); }

}  // namespace drover::jinja
