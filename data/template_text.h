// A chat template's source in one spelling, so that templates that render alike compare equal: blocks without white
// space, output as one list of literals and expressions. Source: Jinja2 with trim_blocks and lstrip_blocks, as
// transformers runs it.
#pragma once
#include <string>

namespace drover {

// "{% for m in x %}\n<a>{{ m["role"] }}{{ '\n' }}" → "{%for m in x%}{{'<a>'+m['role']+'⏎'}}" (⏎ a line end). What does
// not parse comes out as it is.
std::string canonical_template(const std::string& text);

}  // namespace drover
