// Dialogs to token ids as the model's own chat template writes them. A template whose text is a known original (ChatML,
// SmolLM2, Llama 3 to 3.3) is rendered by native code; any other is interpreted (data/jinja). Control tokens are
// written by the template alone; what people wrote can never become one.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "configs/choices.h"
#include "data/message.h"
#include "data/tokenizer.h"

namespace drover {

class InterpretedTemplate;

struct ChatTemplate {
  enum class Family { chatml, llama3, llama3_1, interpreted };
  Family family = Family::chatml;
  std::optional<std::string> default_system = {};  // ChatML: said where a dialog does not begin with a system message
  // The template's own text; absent where it was named instead. What native code does not write is left to it: tools,
  // tool calls, other roles.
  std::shared_ptr<const InterpretedTemplate> source = {};
  bool named = false;  // by the recipe

  // From chat_template.jinja, or chat_template in tokenizer_config.json; nothing when the directory has none. bad_data
  // with line and column for a template that needs more of Jinja than data/jinja has.
  static std::optional<ChatTemplate> find(const fs::path& directory);
  // From a file of Jinja, or a directory as above, which must have one; the special tokens that it names are those of
  // `tokenizer`'s directory.
  static ChatTemplate read(const fs::path& path, const fs::path& tokenizer);
  std::string text() const;  // Jinja: its own, or one that renders the same
  std::string name() const;  // for people, and part of a token store's identity
  // Whether the template's text has the word: a message's field that it does not name changes nothing.
  bool reads(const std::string& field) const;
};

// The dialog without the fields that the template does not read; their names ("messages.FIELD", once each) are added to
// `ignored`, where given. bad_data where something would be lost with them: tools, tool calls.
std::vector<Message> as_read(const std::vector<Message>& dialog, const OrderedJson& tools, const ChatTemplate& chat,
                             std::vector<std::string>* ignored = nullptr);

struct Rendered {
  std::vector<int32_t> ids;
  // 1 where the token is a target: from the first character that an assistant's turn contributes (for a tool call that
  // comes first, from where the answer begins) to the token that ends the turn; what the template marks with
  // {% generation %}, where it does.
  std::vector<uint8_t> trained;
  // Assistant's turns before the last that are written otherwise than when they were the last (their reasoning is cut,
  // for example): they are not trained.
  int64_t rewritten = 0;
};

struct RenderOptions {
  static constexpr const char* kDate = "26 Jul 2024";
  std::string date = kDate;            // Llama 3.1's; an interpreted template sees another than this as date_string
  bool add_generation_prompt = false;  // end with the header of an assistant's turn
  TrainOn train_on = TrainOn::assistant;
  OrderedJson tools = {};  // a list of functions, or null
};

// bad_data for a dialog that the template does not take.
Rendered render(const std::vector<Message>& dialog, const ChatTemplate& chat, const Tokenizer& tokenizer,
                const RenderOptions& options = {});

// Tokens that end an answer: the template's end of turn and the model's eos list.
std::vector<int32_t> stop_ids(const std::optional<ChatTemplate>& chat, const Tokenizer& tokenizer,
                              const std::vector<int32_t>& eos);

}  // namespace drover
