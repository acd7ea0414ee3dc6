// What generate asks: prompts as the model gets them, in the words of the adapter that answers.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "configs/recipe.h"
#include "data/prompts.h"
#include "kernels/base/error.h"
#include "launch/verbs/generate_options.h"
#include "model/config.h"
#include "trainer/generation/manner.h"

namespace drover {

// A prompt as the model gets it, or why it cannot be answered.
struct Question {
  Prompt prompt;
  std::vector<int32_t> ids, stop_ids;
  std::optional<Error> error;
  std::optional<size_t> adapter;  // of the named ones
};

class Questioner {
 public:
  // The tokenizer, chat template and stop ids of --adapter DIR are those that it carries, where the recipe names none;
  // an adapter by name may have a template of its own, and must have the base's tokenizer (bad_data).
  Questioner(const GenerateOptions& options, const Recipe& recipe, const ModelConfig& config);

  // bad_data for an adapter that no --adapter names; what else is wrong is the question's error.
  Question question_of(const Prompt& prompt) const;
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const Adapters& adapters() const { return adapters_; }
  void warn() const;  // of what the prompts asked so far would surprise with

 private:
  std::vector<int32_t> ids_of(const Prompt& prompt, const Manner& manner) const;

  Adapters adapters_;
  ModelConfig config_;
  bool raw_, special_;
  std::string date_;
  Recipe recipe_;  // with what --adapter DIR carries
  Tokenizer tokenizer_;
  Manner base_;
  std::vector<Manner> named_;
  mutable int64_t spelled_ = 0, plain_ = 0;  // prompts with spellings of control tokens; without a chat template
};

}  // namespace drover
