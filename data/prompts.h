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
  std::string problem;          // why the row holds no prompt; empty where it does
  OrderedJson tools = {};       // functions that the answer may call, or null
  std::string adapter = {};     // by which it is to be answered; empty: it names none
};

// Which rows become prompts: those that hold one (`failed_row`s are passed over); with the failed ones in their places;
// or all, also what is no prompt. What does not is refused: bad_data naming file and line.
enum class PromptRows : uint8_t { good, good_and_failed, all };
// JSONL rows of {"prompt"} or {"messages"}; an answer at the end of a dialog (a training row) is taken off. bad_data
// where the file has no row.
std::vector<Prompt> read_prompts(const fs::path& file, PromptRows rows = PromptRows::good);

// The ids of a prompt: through the chat template, or without one its plain text (blank lines between messages) in the
// frame that the tokenizer puts around a text. As transformers' tokenizer(text) does, that ends with an EOS where the
// post_processor says so. bad_data naming the prompt's place for one without tokens, or that the template does not
// take.
std::vector<int32_t> prompt_ids(const Prompt& prompt, const Tokenizer& tokenizer,
                                const std::optional<ChatTemplate>& chat, const std::string& date);

// The ids of a prompt that is rendered already: spellings of control tokens are those. A BOS as above, unless the
// prompt begins with it. bad_data for a dialog of several messages.
std::vector<int32_t> rendered_ids(const Prompt& prompt, const Tokenizer& tokenizer);
// Whether a message spells a control token, which is letters to `prompt_ids`.
bool spells_control_tokens(const Prompt& prompt, const Tokenizer& tokenizer);

// {"messages": […, {"role": "assistant", "content": answer}]}
std::string answered_row(const Prompt& prompt, const std::string& answer);
// {"error": {"row": row, "message": message}}: in the place of an answer. Readers of data pass over it.
std::string failed_row(size_t row, const std::string& message);

}  // namespace drover
