// The text of one answer as its tokens come, and what is said of each token.
#pragma once
#include <algorithm>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/stop_texts.h"
#include "data/tokenizer.h"
#include "model/generation/sampling.h"

namespace drover::openai {

// A token with its log-probability.
struct ScoredToken {
  int32_t id = 0;
  std::string bytes;  // may be part of a character
  float logprob = 0;
};

// A token of a text. `top`: the likeliest at its place, in order, at most as many as were asked for; it need not hold
// the token itself.
struct TokenEntry {
  ScoredToken token;
  bool scored = true;  // false: there is no log-probability, as for the first token of a prompt
  std::vector<ScoredToken> top = {};
  // Characters (code points) of the text in front of the one that the token begins or continues.
  int64_t text_offset = 0;
};

struct AnswerTextSettings {
  std::vector<std::string> stop = {};
  bool skip_special = true;  // special tokens are not shown
  bool logprobs = false;     // tokens have entries; Chosen::logprob is there then
};

// Pieces joined are the whole text, and so are their entries: an answer in pieces and one that is not are the same. A
// token's entry comes with the first byte of its text; those of tokens that begin with or behind a stop text do not
// come.
class AnswerText {
 public:
  AnswerText(const Tokenizer& tokenizer, const AnswerTextSettings& settings);

  struct Piece {
    std::string text;  // whole characters
    std::vector<TokenEntry> entries;
    bool stopped = false;  // a stop text was found: the answer ends here, with Finish::stop
  };
  Piece push(const Chosen& chosen);  // nothing once it has stopped
  // The token at which the model stopped: of what is said, it has an entry; the text has nothing of it.
  void stop_at(const Chosen& chosen);
  Piece finish();  // what was held back; once, after the last token

 private:
  struct Waiting {
    TokenEntry entry;
    size_t begin;  // bytes of the text in front of it
  };
  void await_text(const Chosen& chosen);
  Piece piece(std::string text, bool last);

  const Tokenizer& tokenizer_;
  AnswerTextSettings settings_;
  StreamDecoder stream_;
  StopTexts stops_;
  size_t decoded_ = 0, shown_ = 0;  // bytes
  int64_t characters_ = 0;          // of what was decoded
  std::deque<Waiting> waiting_;
};

// A prompt's token as the engine scores it: the first one has no log-probability.
struct PromptToken {
  int32_t id;
  std::optional<float> logprob = {};
  int64_t rank = 0;  // of the token at its place, the likeliest is 1; 0: not known
  std::vector<Chosen::Likely> top = {};
  std::span<const Chosen::Likely> first(int64_t most) const {
    return std::span(top).first(std::min(top.size(), static_cast<size_t>(most)));
  }
};

struct PromptText {
  std::string text;
  std::vector<TokenEntry> entries;
};
// At most `top` of each token's likeliest.
PromptText prompt_text(const Tokenizer& tokenizer, std::span<const PromptToken> prompt, int64_t top,
                       bool skip_special = true);

int64_t characters(std::string_view text);  // code points of UTF-8

}  // namespace drover::openai
