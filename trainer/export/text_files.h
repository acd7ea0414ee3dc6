// What a model's answers depend on besides its weights: tokenizer, chat template, the tokens that end an answer. They
// are written next to an adapter and into a merged model, as the run trained with them.
#pragma once
#include "configs/recipe.h"
#include "model/config.h"
#include "model/files/peft.h"

namespace drover {

// tokenizer.json or tokenizer.model with its settings, chat_template.jinja, generation_config.json.
// The recipe's tokenizer as its files are; the template that the recipe names or finds; the base's generation settings
// with all stop ids. Errors: io; bad_data for a tokenizer or template that cannot be read.
MoreFiles text_files(const Recipe& recipe, const ModelConfig& base);

// Those of a model directory as they are, where they are.
void copy_text_files(const fs::path& from, const fs::path& to);

// The same as text_files, for a model that is one file.
struct ModelTexts {
  fs::path tokenizer;  // its directory
  std::optional<std::string> chat_template;
  std::vector<int32_t> stops;  // all tokens that end an answer
};
ModelTexts model_texts(const Recipe& recipe, const ModelConfig& base);

// The recipe for an adapter's directory: where it has a tokenizer of its own and the recipe names none, that one; the
// base's template where it has none. True where it was taken, which is said.
bool take_tokenizer(Recipe& recipe, const fs::path& adapter);

}  // namespace drover
