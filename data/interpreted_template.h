// A chat template's own text, run for a dialog.
#pragma once
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/chat_template.h"
#include "data/jinja/template.h"

namespace drover {

class InterpretedTemplate {
 public:
  using SpecialTokens =
      std::vector<std::pair<std::string, std::string>>;  // bos_token, eos_token, … and their spellings
  // bad_data naming `where` for a text that cannot be run.
  InterpretedTemplate(const std::string& text, SpecialTokens special_tokens, const std::string& where);

  Rendered render(const std::vector<Message>& dialog, const Tokenizer& tokenizer, const RenderOptions& options) const;
  // The control token with which the template ends an assistant's turn; nothing where it writes none.
  std::optional<int32_t> end_of_turn(const Tokenizer& tokenizer) const;
  const std::string& hash() const { return hash_; }
  const std::string& text() const { return text_; }
  bool names(const std::string& word) const;  // whether the text has it

  // SHA-256 of a template's text, whose lines may end in CRLF and which may end in white space.
  static std::string hash_of(const std::string& text);

 private:
  class Training;
  jinja::Text text_of(std::span<const Message> dialog, const RenderOptions& options, bool generation_prompt) const;

  std::string text_;
  jinja::Template program_;
  SpecialTokens special_tokens_;
  std::string hash_;
};

}  // namespace drover
