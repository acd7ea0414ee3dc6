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

const std::string& pattern_of(PreTokenizer::Kind kind) {
  static const std::string llama3 = with_space(
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^SPACE\p{L}\p{N}]+[\r\n]*|[SPACE]*[\r\n]+|[SPACE]+(?![^SPACE])|[SPACE]+)");
  static const std::string gpt2 =
      with_space(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^SPACE\p{L}\p{N}]+|[SPACE]+(?![^SPACE])|[SPACE]+)");
  return kind == PreTokenizer::Kind::llama3 ? llama3 : gpt2;
}

}  // namespace

struct PreTokenizer::Pattern {
  explicit Pattern(const std::string& text) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &offset, nullptr);
    require(code != nullptr, "the pre-tokenizer's pattern compiles");
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  }
  ~Pattern() { pcre2_code_free(code); }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  // Calls f on each match, and `between` on what lies between matches.
  template <typename F, typename G>
  void for_each(std::string_view text, F&& f, G&& between) const {
    struct Free {
      void operator()(pcre2_match_data* d) const { pcre2_match_data_free(d); }
      void operator()(pcre2_match_context* c) const { pcre2_match_context_free(c); }
      void operator()(pcre2_jit_stack* s) const { pcre2_jit_stack_free(s); }
    };
    const std::unique_ptr<pcre2_match_data, Free> match(pcre2_match_data_create_from_pattern(code, nullptr));
    const std::unique_ptr<pcre2_match_context, Free> context(pcre2_match_context_create(nullptr));
    const std::unique_ptr<pcre2_jit_stack, Free> stack(pcre2_jit_stack_create(32 * 1024, 64 * 1024 * 1024, nullptr));
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
    size_t at = 0;
    while (at < text.size()) {
      const int found = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at, PCRE2_NO_UTF_CHECK, match.get(), context.get());
      if (found == PCRE2_ERROR_NOMATCH) break;
      if (found < 0) fail(Exit::bad_data, "the text cannot be split into words (PCRE2 error {}): a run of {} bytes is too long", found, text.size() - at);
      const PCRE2_SIZE* span = pcre2_get_ovector_pointer(match.get());
      if (span[0] > at) between(text.substr(at, span[0] - at));
      f(text.substr(span[0], span[1] - span[0]));
      at = span[1];
    }
    if (at < text.size()) between(text.substr(at));
  }

  pcre2_code* code = nullptr;
};

PreTokenizer::PreTokenizer(Kind kind) : kind_(kind), pattern_(std::make_unique<Pattern>(pattern_of(kind))) {
  if (kind == Kind::digits_gpt2) digits_ = std::make_unique<Pattern>(R"(\p{N})");
}
PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

size_t first_invalid_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const size_t length = c < 0x80 ? 1 : c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xF0 && c < 0xF5 ? 4 : 0;
    if (length == 0 || i + length > text.size()) return i;
    uint32_t code = length == 1 ? c : c & (0x7Fu >> length);
    for (size_t k = 1; k < length; ++k) {
      const unsigned char next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xC0) != 0x80) return i;
      code = code << 6 | (next & 0x3Fu);
    }
    if ((length == 3 && code < 0x800) || (length == 4 && (code < 0x10000 || code > 0x10FFFF)) || (code >= 0xD800 && code < 0xE000)) return i;
    i += length;
  }
  return i;
}

std::vector<std::string_view> PreTokenizer::split(std::string_view text) const {
  const size_t bad = first_invalid_utf8(text);
  if (bad != text.size()) fail(Exit::bad_data, "the text is not valid UTF-8 at byte {}; convert it to UTF-8", bad);
  std::vector<std::string_view> pieces;
  const auto keep = [&](std::string_view piece) { pieces.push_back(piece); };
  if (kind_ != Kind::digits_gpt2) {
    pattern_->for_each(text, keep, keep);
    return pieces;
  }
  // A piece between digits is split by itself, so look-ahead ends at the digit; a lone digit is a piece of its own.
  digits_->for_each(text, keep, [&](std::string_view between) { pattern_->for_each(between, keep, keep); });
  return pieces;
}

}  // namespace drover
