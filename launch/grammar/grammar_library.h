// The library that says which tokens may come (xgrammar). Of this interface there are two: launch/grammar/present with
// the library, launch/grammar/absent in a build without it. Source: Dong et al. 2024 (XGrammar).
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/generation/token_filter.h"

namespace drover {

class GrammarLibrary {
 public:
  // The bytes of each of the model's tokens; one without bytes never comes, unless it is a stop id.
  explicit GrammarLibrary(const std::vector<std::string>& tokens);
  ~GrammarLibrary();

  static std::string name();  // with its version; empty where it is absent

  // For one answer in the grammar of a "structural tag", which has stop ids among the tokens. Any thread; a grammar is
  // compiled once, and kept until others need its place. bad_data with the library's reason.
  std::shared_ptr<TokenFilter> filter(const std::string& structural_tag, std::span<const int32_t> stop_ids);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace drover
