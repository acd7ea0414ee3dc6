// Prompts of a file, and the rows that echo them with their answers, which are valid training data.
#pragma once
#include <string>
#include <vector>

#include "data/chat_template.h"

namespace drover {

struct Prompt {
  std::vector<Message> dialog;  // what is to be answered: its last message is not the assistant's
  std::string where;            // "file:line", for messages about it
};

// JSONL rows of {"prompt"} or {"messages"}; an answer at the end of a dialog (a training row) is taken off. 65 naming file and line.
std::vector<Prompt> read_prompts(const fs::path& file);

// {"messages": […, {"role": "assistant", "content": answer}]}
std::string answered_row(const Prompt& prompt, const std::string& answer);

}  // namespace drover
