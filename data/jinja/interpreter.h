// The state of one rendering: names, output, and what is left of the limits.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/jinja/value.h"

namespace drover::jinja {

struct Expression;
struct Statement;

enum class Flow : uint8_t { next_statement, break_loop, next_round };

// A template that needs more than this is refused: it would not end, or eat the memory.
struct Limits {
  int64_t steps = 20'000'000;           // expressions and statements
  size_t output_bytes = kLargestValue;  // also of every value on the way
  int depth = 200;                      // of blocks, calls and brackets
};

// Names of a loop's round, a macro's call or the whole template. Inner ones see outer ones; `set` sets the inner.
struct Scope {
  std::vector<std::pair<std::string, Value>> names;
  std::shared_ptr<Scope> outer;

  const Value* find(const std::string& name) const;
  void set(const std::string& name, const Value& value);
};

// raise_exception(): the template refuses the dialog.
class Raised : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Interpreter {
 public:
  Interpreter(std::vector<std::pair<std::string, Value>> globals, const Limits& limits);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // SyntaxError, with the place of the innermost expression, for what cannot be evaluated; Raised.
  Value evaluate(const Expression& expression);
  Flow execute(const std::vector<std::unique_ptr<Statement>>& body);
  // What the body writes.
  Text captured(const std::vector<std::unique_ptr<Statement>>& body, Flow& flow);

  void write(const Text& text);
  void check_size(size_t bytes) const;  // Refusal for more than the limit
  void spend(int64_t steps);            // Refusal when there are no more
  // Namespaces may hold one another, in circles and long chains: all are emptied at the end of the rendering.
  void keep(const std::shared_ptr<Namespace>& space);

  const std::shared_ptr<Scope>& scope() const { return scope_; }
  // Enters a scope within `outer`, and leaves it at the end of its life.
  class Inside {
   public:
    Inside(Interpreter& run, std::shared_ptr<Scope> outer);
    ~Inside();
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    Interpreter& run_;
    std::shared_ptr<Scope> before_;
  };

 private:
  std::shared_ptr<Scope> scope_;
  std::vector<std::shared_ptr<Namespace>> spaces_;
  Text* out_ = nullptr;
  Limits limits_;
  int64_t steps_ = 0;
  int depth_ = 0;
};

}  // namespace drover::jinja
