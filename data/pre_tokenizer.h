// Cuts text into the pieces that BPE works on. Two families are known, each a regular expression run by PCRE2.
#pragma once
#include <memory>
#include <string_view>
#include <vector>

namespace drover {

class PreTokenizer {
 public:
  enum class Kind {
    llama3,        // Llama 3's split: contractions in any case, words with one leading mark, digits in threes, punctuation with line ends
    digits_gpt2,   // SmolLM2's: every digit by itself, then GPT-2's split of what lies between
    gpt2,
  };
  explicit PreTokenizer(Kind kind);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;

  // The pieces of valid UTF-8, in order; together they are the text. Fails (65) naming the byte where the text is not UTF-8.
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  struct Pattern;
  Kind kind_;
  std::unique_ptr<Pattern> pattern_, digits_;
};

// The offset of the first byte that is not valid UTF-8, or text.size().
size_t first_invalid_utf8(std::string_view text);

}  // namespace drover
