// Prompts of a file, and the rows that echo them with their answers, which are valid training data.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "data/chat_template.h"

namespace drover {

class Tokenizer;

struct Prompt {
  std::vector<Message> dialog;  // what is to be answered: its last message is not the assistant's
  std::string where;            // "file:line", for messages about it
};

// JSONL rows of {"prompt"} or {"messages"}; an answer at the end of a dialog (a training row) is taken off. 65 naming file and line.
std::vector<Prompt> read_prompts(const fs::path& file);
// The same of a file of answers, where a row that failed (`failed_row`) is a prompt without a dialog.
std::vector<Prompt> read_answered_prompts(const fs::path& file);

// The ids of a prompt: through the chat template, or without one its plain text (behind a BOS where the tokenizer adds
// it). 65 naming the prompt's place for one without tokens, or that the template does not take.
std::vector<int32_t> prompt_ids(const Prompt& prompt, const Tokenizer& tokenizer,
                                const std::optional<ChatTemplate>& chat, const std::string& date);

// {"messages": […, {"role": "assistant", "content": answer}]}
std::string answered_row(const Prompt& prompt, const std::string& answer);
// {"error": {"row": row, "message": message}}: in the place of an answer. Readers of data pass over it.
std::string failed_row(size_t row, const std::string& message);

}  // namespace drover
