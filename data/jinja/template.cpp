#include "data/jinja/template.h"

#include "data/jinja/nodes.h"
#include "kernels/base/error.h"

namespace drover::jinja {

namespace {

[[noreturn]] void refuse(const std::string& where, const SyntaxError& error) {
  fail(Fault::bad_data, "{}: the chat template, line {}, column {}: {}", where, error.place.line, error.place.column,
       error.what());
}

}  // namespace

Template::Template(std::string_view source, std::string where) : where_(std::move(where)) {
  try {
    body_ = std::make_shared<const Body>(parse(source));
    for (const Token& token : tokenize(source))
      has_generation_ |= token.kind == Token::Kind::name && token.text == "endgeneration";
  } catch (const SyntaxError& error) {
    refuse(where_, error);
  }
}

Text Template::render(const Variables& variables, const Limits& limits) const {
  Variables globals = builtin_functions();
  globals.insert(globals.end(), variables.begin(), variables.end());
  Interpreter run(std::move(globals), limits);
  try {
    const Interpreter::Inside inside(run, run.scope());
    Flow flow = Flow::next_statement;
    return run.captured(*body_, flow);
  } catch (const SyntaxError& error) {
    refuse(where_, error);
  } catch (const Raised& raised) {
    fail(Fault::bad_data, "the chat template refuses the dialog: {}", clipped(raised.what(), 300));
  }
}

}  // namespace drover::jinja
