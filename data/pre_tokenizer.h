// Cuts text into the pieces that BPE works on, by regular expressions run by PCRE2.
#pragma once
#include <optional>
#include <string_view>
#include <vector>

#include "data/text_pattern.h"
#include "kernels/base/unicode.h"

namespace drover {

class PreTokenizer {
 public:
  enum class Kind {
    llama3,  // Llama 3's split: contractions in any case, words with one leading mark, digits in threes, punctuation
             // with line ends
    digits_gpt2,  // SmolLM2's: every digit by itself, then GPT-2's split of what lies between
    gpt2,
  };
  explicit PreTokenizer(Kind kind);

  // The pieces of `text`, in order; together they are the text. Expects valid UTF-8.
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  TextPattern pattern_;
  std::optional<TextPattern> digits_;  // only where digits are split off first
};

}  // namespace drover
