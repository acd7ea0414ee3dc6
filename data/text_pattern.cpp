#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/text_pattern.h"

#include <pcre2.h>

#include <cstdint>
#include <utility>

#include "kernels/base/error.h"

namespace drover {

namespace {

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
// The step Digits asks Rust itself, which is at Unicode 17.
constexpr const char* kLaterDigits = R"(\x{11DE0}-\x{11DE9}\x{16FF4}-\x{16FF6})";
// Marks, digits, connectors and letters that join, behind those of Unicode 14.
constexpr const char* kMore =
    R"(\x{200C}\x{200D}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189}\x{897}\x{CF3}\x{ECE})"
    R"(\x{10D40}-\x{10D49}\x{10D69}-\x{10D6D}\x{10EFC}-\x{10EFF}\x{11241}\x{113B8}-\x{113C0}\x{113C2}\x{113C5})"
    R"(\x{113C7}-\x{113CA}\x{113CC}-\x{113D0}\x{113D2}\x{113E1}\x{113E2}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11F00})"
    R"(\x{11F01}\x{11F03}\x{11F34}-\x{11F3A}\x{11F3E}-\x{11F42}\x{11F50}-\x{11F5A}\x{13440}\x{13447}-\x{13455})"
    R"(\x{1611E}-\x{16139}\x{16D70}-\x{16D79}\x{1CCF0}-\x{1CCF9}\x{1E08F}\x{1E4EC}-\x{1E4F9}\x{1E5EE}\x{1E5EF})"
    R"(\x{1E5F1}-\x{1E5FA})";

constexpr size_t kFirstStackBytes = 32 << 10, kLargestStackBytes = 64 << 20;

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};

}  // namespace

std::string with_classes(std::string pattern) {
  const std::pair<std::string_view, const char*> classes[] = {
      {"SPACE", kSpace}, {"LETTER", kLetter}, {"NUMBER", kNumber}, {"LATER", kLaterDigits}, {"MORE", kMore}};
  for (const auto& [name, members] : classes) {
    for (size_t at = 0; (at = pattern.find(name, at)) != std::string::npos;) pattern.replace(at, name.size(), members);
  }
  return pattern;
}

struct TextPattern::Code {
  std::unique_ptr<pcre2_code, Free> compiled;
};

TextPattern::TextPattern(const std::string& text) : code_(std::make_unique<Code>()) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->compiled.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                      PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &offset, nullptr));
  require(code_->compiled != nullptr, "a tokenizer's pattern compiles");
  // Where it cannot, the interpreter runs the same pattern.
  pcre2_jit_compile(code_->compiled.get(), PCRE2_JIT_COMPLETE);
}
TextPattern::~TextPattern() = default;
TextPattern::TextPattern(TextPattern&&) noexcept = default;
TextPattern& TextPattern::operator=(TextPattern&&) noexcept = default;

struct TextPattern::Matcher::Memory {
  const pcre2_code* code;
  std::unique_ptr<pcre2_match_data, Free> match;
  std::unique_ptr<pcre2_match_context, Free> context;
  std::unique_ptr<pcre2_jit_stack, Free> stack;
};

TextPattern::Matcher::Matcher(const TextPattern& pattern) : memory_(std::make_unique<Memory>()) {
  memory_->code = pattern.code_->compiled.get();
  memory_->match.reset(pcre2_match_data_create_from_pattern(memory_->code, nullptr));
  memory_->context.reset(pcre2_match_context_create(nullptr));
  memory_->stack.reset(pcre2_jit_stack_create(kFirstStackBytes, kLargestStackBytes, nullptr));
  pcre2_jit_stack_assign(memory_->context.get(), nullptr, memory_->stack.get());
  // The patterns go back over a run of white space once: linear, but longer than the default.
  pcre2_set_match_limit(memory_->context.get(), UINT32_MAX);
}
TextPattern::Matcher::~Matcher() = default;
TextPattern::Matcher::Matcher(Matcher&&) noexcept = default;

std::optional<TextPattern::Span> TextPattern::Matcher::find(std::string_view text, size_t from) const {
  const int found = pcre2_match(memory_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                PCRE2_NO_UTF_CHECK, memory_->match.get(), memory_->context.get());
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (found < 0) {
    fail(Fault::bad_data,
         "the text cannot be cut into words from byte {} on (PCRE2 error {}); break up its longest run of letters or "
         "white space",
         from, found);
  }
  const PCRE2_SIZE* span = pcre2_get_ovector_pointer(memory_->match.get());
  return Span{span[0], span[1]};
}

namespace {

bool is_word(std::string_view character) {
  static const TextPattern pattern(with_classes(R"([LETTERMORE\p{M}\p{Nd}\p{Nl}\p{Pc}])"));
  return TextPattern::Matcher(pattern).find(character, 0).has_value();
}

bool is_tail(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// Bytes of the first character, and of the last.
size_t first_length(std::string_view text) {
  size_t length = 1;
  while (length < text.size() && is_tail(text[length])) ++length;
  return length;
}
size_t last_length(std::string_view text) {
  size_t length = 1;
  while (length < text.size() && is_tail(text[text.size() - length])) ++length;
  return length;
}

bool is_space(std::string_view character) {
  constexpr std::string_view kLonger[] = {"\u0085", "\u00A0", "\u1680", "\u2028",
                                          "\u2029", "\u202F", "\u205F", "\u3000"};
  if (character.size() == 1) return character[0] == ' ' || (character[0] >= '\t' && character[0] <= '\r');
  for (std::string_view space : kLonger) {
    if (character == space) return true;
  }
  return character >= "\u2000" && character <= "\u200A" && character.size() == 3;
}

}  // namespace

bool begins_with_word(std::string_view text) { return !text.empty() && is_word(text.substr(0, first_length(text))); }

bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word(text.substr(text.size() - last_length(text)));
}

size_t leading_space(std::string_view text) {
  size_t bytes = 0;
  while (bytes < text.size()) {
    const size_t length = first_length(text.substr(bytes));
    if (!is_space(text.substr(bytes, length))) break;
    bytes += length;
  }
  return bytes;
}

size_t trailing_space(std::string_view text) {
  size_t left = text.size();
  while (left > 0) {
    const size_t length = last_length(text.substr(0, left));
    if (!is_space(text.substr(left - length, length))) break;
    left -= length;
  }
  return text.size() - left;
}

}  // namespace drover
