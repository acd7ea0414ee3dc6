#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/pre_tokenizer.h"

#include <pcre2.h>

#include <cstdint>
#include <string>
#include <utility>

#include "kernels/base/error.h"

namespace drover {

namespace {

// Character classes as the Unicode 16 of Hugging Face's regex engine has them, so that ids do not depend on the PCRE2
// at hand: Debian 12's knows Unicode 14, and its \s also takes U+180E.
constexpr const char* kSpace =
    R"(\t-\r\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
constexpr const char* kLetter =
    R"(\p{L}\x{1C89}\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D4A}-\x{10D65}\x{10D6F}-\x{10D85}\x{10EC2}-\x{10EC4})"
    R"(\x{1123F}\x{11240}\x{11380}-\x{11389}\x{1138B}\x{1138E}\x{11390}-\x{113B5}\x{113B7}\x{113D1}\x{113D3}\x{11BC0}-\x{11BE0}\x{11F02})"
    R"(\x{11F04}-\x{11F10}\x{11F12}-\x{11F33}\x{1342F}\x{13441}-\x{13446}\x{13460}-\x{143FA}\x{16100}-\x{1611D}\x{16D40}-\x{16D6C}\x{18CFF})"
    R"(\x{1B132}\x{1B155}\x{1DF25}-\x{1DF2A}\x{1E030}-\x{1E06D}\x{1E4D0}-\x{1E4EB}\x{1E5D0}-\x{1E5ED}\x{1E5F0}\x{2B739}\x{2EBF0}-\x{2EE5D})"
    R"(\x{31350}-\x{323AF})";
constexpr const char* kNumber =
    R"(\p{N}\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11F50}-\x{11F59}\x{16130}-\x{16139}\x{16D70}-\x{16D79})"
    R"(\x{1CCF0}-\x{1CCF9}\x{1D2C0}-\x{1D2D3}\x{1E4F0}-\x{1E4F9}\x{1E5F1}-\x{1E5FA})";
// The Digits step asks Rust, which is at Unicode 17.
constexpr const char* kLaterDigits = R"(\x{11DE0}-\x{11DE9}\x{16FF4}-\x{16FF6})";

std::string with_classes(std::string pattern) {
  const std::pair<std::string_view, const char*> classes[] = {
      {"SPACE", kSpace}, {"LETTER", kLetter}, {"NUMBER", kNumber}, {"LATER", kLaterDigits}};
  for (const auto& [name, members] : classes) {
    for (size_t at = 0; (at = pattern.find(name, at)) != std::string::npos;) pattern.replace(at, name.size(), members);
  }
  return pattern;
}

std::string pattern_of(PreTokenizer::Kind kind) {
  if (kind == PreTokenizer::Kind::llama3) {
    return with_classes(
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nLETTERNUMBER]?[LETTER]+|[NUMBER]{1,3}| ?[^SPACELETTERNUMBER]+[\r\n]*|[SPACE]*[\r\n]+|)"
        R"([SPACE]+(?![^SPACE])|[SPACE]+)");
  }
  return with_classes(
      R"('s|'t|'re|'ve|'m|'ll|'d| ?[LETTER]+| ?[NUMBER]+| ?[^SPACELETTERNUMBER]+|[SPACE]+(?![^SPACE])|[SPACE]+)");
}

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};

constexpr size_t kFirstStackBytes = 32 << 10, kLargestStackBytes = 64 << 20;

}  // namespace

class PreTokenizer::Pattern {
 public:
  explicit Pattern(const std::string& text) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &offset, nullptr));
    require(code_ != nullptr, "the pre-tokenizer's pattern compiles");
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // where it cannot, the interpreter runs the same pattern
  }

  // One thread's memory for matching.
  class Matcher {
   public:
    explicit Matcher(const Pattern& pattern)
        : code_(pattern.code_.get()),
          match_(pcre2_match_data_create_from_pattern(code_, nullptr)),
          context_(pcre2_match_context_create(nullptr)),
          stack_(pcre2_jit_stack_create(kFirstStackBytes, kLargestStackBytes, nullptr)) {
      pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
      pcre2_set_match_limit(
          context_.get(),
          UINT32_MAX);  // the patterns go back over a run of white space once: linear, but longer than the default
    }

    // Calls `inside` on every match and `between` on what lies before, between and after them, in order.
    template <typename Inside, typename Between>
    void for_each(std::string_view text, Inside&& inside, Between&& between) const {
      size_t at = 0;
      while (at < text.size()) {
        const int found = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                      PCRE2_NO_UTF_CHECK, match_.get(), context_.get());
        if (found == PCRE2_ERROR_NOMATCH) break;
        if (found < 0) {
          fail(Fault::bad_data,
               "the text cannot be cut into words from byte {} on (PCRE2 error {}); break up its longest run of "
               "letters or white space",
               at, found);
        }
        const PCRE2_SIZE* span = pcre2_get_ovector_pointer(match_.get());
        if (span[0] > at) between(text.substr(at, span[0] - at));
        inside(text.substr(span[0], span[1] - span[0]));
        at = span[1];
      }
      if (at < text.size()) between(text.substr(at));
    }

   private:
    const pcre2_code* code_;
    std::unique_ptr<pcre2_match_data, Free> match_;
    std::unique_ptr<pcre2_match_context, Free> context_;
    std::unique_ptr<pcre2_jit_stack, Free> stack_;
  };

 private:
  std::unique_ptr<pcre2_code, Free> code_;
};

PreTokenizer::PreTokenizer(Kind kind) : pattern_(std::make_unique<Pattern>(pattern_of(kind))) {
  if (kind == Kind::digits_gpt2) digits_ = std::make_unique<Pattern>(with_classes("[NUMBERLATER]"));
}
PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

std::vector<std::string_view> PreTokenizer::split(std::string_view text) const {
  std::vector<std::string_view> pieces;
  const auto keep = [&](std::string_view piece) { pieces.push_back(piece); };
  const Pattern::Matcher words(*pattern_);
  if (!digits_) {
    words.for_each(text, keep, keep);
    return pieces;
  }
  // What lies between digits is split as a text of its own, so a look-ahead ends at the digit.
  Pattern::Matcher(*digits_).for_each(text, keep,
                                      [&](std::string_view between) { words.for_each(between, keep, keep); });
  return pieces;
}

}  // namespace drover
