// Dialogs to token ids, for the chat formats that are known: ChatML (with or without a default system message, as
// SmolLM2 has one), Llama 3.0 and Llama 3.1 (which always states a date). Control tokens are written by this code; what
// people wrote can never become one.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "configs/choices.h"
#include "data/tokenizer.h"

namespace drover {

struct Message {
  std::string role;  // system, user, assistant
  std::string content;
  bool operator==(const Message&) const = default;
};

struct ChatTemplate {
  enum class Family { chatml, llama3, llama3_1 };
  Family family = Family::chatml;
  std::optional<std::string> default_system;  // ChatML: said where a dialog does not begin with a system message

  // From chat_template in tokenizer_config.json, or chat_template.jinja; nothing when the directory has none. bad_data
  // for a template of another family.
  static std::optional<ChatTemplate> find(const fs::path& directory);
  std::string name() const;
};

struct Rendered {
  std::vector<int32_t> ids;
  std::vector<uint8_t> trained;  // 1 where the token is a target: an assistant's words and its end-of-turn token
};

struct RenderOptions {
  std::string date = "26 Jul 2024";    // Llama 3.1 only
  bool add_generation_prompt = false;  // end with the header of an assistant's turn
  TrainOn train_on = TrainOn::assistant;
};

Rendered render(const std::vector<Message>& dialog, const ChatTemplate& chat, const Tokenizer& tokenizer,
                const RenderOptions& options = {});

// Tokens that end an answer: the family's end of turn and the model's eos list.
std::vector<int32_t> stop_ids(const std::optional<ChatTemplate>& chat, const Tokenizer& tokenizer,
                              const std::vector<int32_t>& eos);

}  // namespace drover
