// What answers may be held to: any JSON object, a JSON schema, or a call of a tool as Llama 3.1 writes it. A grammar
// made of that says before each token which ones may come.
#pragma once
#include <memory>
#include <span>
#include <string>

#include "data/tokenizer.h"
#include "model/generation/token_filter.h"

namespace drover {

class GrammarLibrary;

// For one tokenizer, and a model with as many logits as `vocab`. Any thread.
class Grammars {
 public:
  Grammars(const Tokenizer& tokenizer, int64_t vocab);
  ~Grammars();

  static bool available();       // in this build
  static std::string library();  // its name and version; empty where it is absent

  // A filter for one answer. `spec` is a JSON text:
  //   {"kind": "json_object"}
  //   {"kind": "json_schema", "schema": {…}, "strict": true}    (launch/grammar/answer_schema.h says which schemas)
  //   {"kind": "tools", "tools": [{"type": "function", "function": {"name": …, "parameters": {…}, "strict": …}}, …],
  //    "name": …, "parallel": false}
  // Not strict (`"strict": false`): objects may have properties that the schema does not name. Tools: the answer is
  // {"name": NAME, "parameters": {…}} for one of the tools, or the one that is named; if parallel, one or more of
  // them, with "; " between. Special tokens come at the end only, as one of the stop ids, and there alone do those.
  //
  // What was made of a spec is kept, so that asking again is quick; the first time may take seconds. bad_data for what
  // is not understood, naming it; usage where the library is absent.
  std::shared_ptr<TokenFilter> filter(const std::string& spec, std::span<const int32_t> stop_ids);

 private:
  std::unique_ptr<GrammarLibrary> library_;
};

}  // namespace drover
