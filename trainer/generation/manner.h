// How a model, or one of its adapters, is spoken to: its chat template, and the tokens that end its answers.
#pragma once
#include <optional>
#include <vector>

#include "configs/recipe.h"
#include "data/chat_template.h"
#include "model/config.h"

namespace drover {

struct Manner {
  std::optional<ChatTemplate> chat;
  std::vector<int32_t> stop_ids;
};

// What a Manner is made from.
struct Speaker {
  const Recipe& recipe;  // names the base's tokenizer and template
  const ModelConfig& model;
  const Tokenizer& tokenizer;
  bool dialogs = true;  // false: prompts are rendered already, or are no dialogs, and no template is read
};

// `directory`: the model's or the adapter's, whose generation_config.json may name further tokens that end an answer.
Manner manner_of(const Speaker& speaker, const fs::path& directory);
// Of an adapter that shares its base with others; it may have a template of its own, and files of its own for the same
// tokenizer. bad_data naming `name` where its tokenizer makes other tokens than the others'.
Manner manner_of_adapter(const Speaker& base, const std::string& name, const fs::path& directory);

}  // namespace drover
