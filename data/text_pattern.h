// A regular expression over UTF-8 as PCRE2 runs it, and the classes of characters that Hugging Face's engines have.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace drover {

// A pattern's classes, spelled SPACE, LETTER, NUMBER and LATER (digits of Unicode 17) within its brackets. They are
// those of Unicode 16, as Hugging Face's regex engine has them, so that ids do not depend on the PCRE2 at hand: Debian
// 12's knows Unicode 14, and its \s also takes U+180E. MORE is what \p{M}, \p{Nd} and \p{Pc} lack for Rust's \w.
std::string with_classes(std::string pattern);

class TextPattern {
 public:
  explicit TextPattern(const std::string& text);
  ~TextPattern();
  TextPattern(TextPattern&&) noexcept;
  TextPattern& operator=(TextPattern&&) noexcept;

  struct Span {  // bytes [begin, end)
    size_t begin = 0, end = 0;
  };
  // One thread's memory for matching.
  class Matcher {
   public:
    explicit Matcher(const TextPattern& pattern);
    ~Matcher();
    Matcher(Matcher&&) noexcept;
    // The first match at or behind `from`. Expects valid UTF-8; bad_data where a run of characters is too long.
    std::optional<Span> find(std::string_view text, size_t from) const;

   private:
    struct Memory;
    std::unique_ptr<Memory> memory_;
  };

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

// What decides where an added token stands by itself, and what it takes with it: Rust's \w and \s.
bool begins_with_word(std::string_view text);
bool ends_with_word(std::string_view text);
size_t leading_space(std::string_view text);   // bytes
size_t trailing_space(std::string_view text);  // bytes

}  // namespace drover
