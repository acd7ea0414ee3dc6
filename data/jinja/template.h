// A chat template in Jinja, as far as chat templates use it: bounded in time, memory and depth; what it has beyond that
// is refused with line and column. Source: Jinja2's documentation; huggingface/transformers (chat_template_utils:
// trim_blocks, lstrip_blocks, tojson, raise_exception, strftime_now, loop controls, {% generation %}).
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/jinja/interpreter.h"

namespace drover::jinja {

class Template {
 public:
  // bad_data naming `where` (a file), line and column for what is not supported.
  Template(std::string_view source, std::string where);

  using Variables = std::vector<std::pair<std::string, Value>>;
  // bad_data as above for what cannot be evaluated; bad_data with the template's own words for raise_exception.
  Text render(const Variables& variables, const Limits& limits = {}) const;
  bool has_generation() const { return has_generation_; }  // a {% generation %} block

 private:
  std::string where_;
  std::shared_ptr<const std::vector<std::unique_ptr<Statement>>> body_;
  bool has_generation_ = false;
};

}  // namespace drover::jinja
