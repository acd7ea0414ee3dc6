#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/pre_tokenizer.h"

#include <pcre2.h>

#include <string>

#include "kernels/base/error.h"

namespace drover {

namespace {

// Unicode's White_Space, written out: PCRE2's own \s also takes U+180E, which the tokenizers' regex engines do not.
constexpr const char* kSpace = R"(\t-\r\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

std::string with_space(std::string pattern) {
  for (size_t at = 0; (at = pattern.find("SPACE", at)) != std::string::npos;) pattern.replace(at, 5, kSpace);
  return pattern;
}

std::string pattern_of(PreTokenizer::Kind kind) {
  if (kind == PreTokenizer::Kind::llama3) {
    return with_space(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^SPACE\p{L}\p{N}]+[\r\n]*|[SPACE]*[\r\n]+|)"
                      R"([SPACE]+(?![^SPACE])|[SPACE]+)");
  }
  return with_space(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^SPACE\p{L}\p{N}]+|[SPACE]+(?![^SPACE])|[SPACE]+)");
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
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &offset, nullptr));
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
    }

    // Calls `inside` on every match and `between` on what lies before, between and after them, in order.
    template <typename Inside, typename Between>
    void for_each(std::string_view text, Inside&& inside, Between&& between) const {
      size_t at = 0;
      while (at < text.size()) {
        const int found = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, PCRE2_NO_UTF_CHECK, match_.get(), context_.get());
        if (found == PCRE2_ERROR_NOMATCH) break;
        if (found < 0) {
          fail(Exit::bad_data, "the text cannot be cut into words from byte {} on (PCRE2 error {}); break up its longest run of letters or white space", at, found);
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
  if (kind == Kind::digits_gpt2) digits_ = std::make_unique<Pattern>(R"(\p{N})");
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
  Pattern::Matcher(*digits_).for_each(text, keep, [&](std::string_view between) { words.for_each(between, keep, keep); });
  return pieces;
}

}  // namespace drover
