#include "data/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "data/jinja/letters.h"

namespace drover::jinja {

namespace {

// A chain of operators becomes a tree as deep as the chain is long.
constexpr size_t kTokensOfTag = 4000;

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

std::string with_unix_lines(std::string_view source) {
  std::string text;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      i += i + 1 < source.size() && source[i + 1] == '\n';
    } else {
      text += source[i];
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(with_unix_lines(source)) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) data();
    push(Token::Kind::end, "");
    return std::move(tokens_);
  }

 private:
  // Text up to the next tag, and the tag.
  void data() {
    size_t open = text_.find('{', at_);
    while (open != std::string::npos &&
           (open + 1 >= text_.size() || std::string_view("{%#").find(text_[open + 1]) == std::string_view::npos))
      open = text_.find('{', open + 1);
    const size_t end = std::min(open, text_.size());
    std::string between = text_.substr(at_, end - at_);
    if (trim_) between.erase(0, count_blanks(between));
    const char mark = open != std::string::npos && open + 2 < text_.size() ? text_[open + 2] : ' ';
    if (mark == '-') {
      while (!between.empty() && is_blank(between.back())) between.pop_back();
    } else if (open != std::string::npos && mark != '+' && text_[open + 1] != '{') {
      strip_line(between, at_ == 0 || trim_);
    }
    if (!between.empty()) push(Token::Kind::data, between);
    trim_ = false;
    at_ = end;
    if (open == std::string::npos) return;
    const char kind = text_[open + 1];
    if (kind == '#') return comment();
    tag(kind == '{' ? Token::Kind::print_begin : Token::Kind::block_begin, mark);
  }

  static size_t count_blanks(const std::string& text) {
    return static_cast<size_t>(std::ranges::find_if_not(text, is_blank) - text.begin());
  }

  // lstrip_blocks: a line's white space before a tag is not text, where nothing else stands before the tag.
  void strip_line(std::string& between, bool begins_line) const {
    const size_t line = between.find_last_of('\n') + 1;
    const bool first = line == 0 && !begins_line && (at_ == 0 || text_[at_ - 1] != '\n');
    const auto blank = [](char c) { return is_blank(c); };
    if (!first && std::all_of(between.begin() + static_cast<std::ptrdiff_t>(line), between.end(), blank))
      between.erase(line);
  }

  // Behind a tag that ended before at_: trim_blocks takes one newline, `-` all white space.
  void after_tag(char mark, bool block) {
    trim_ = mark == '-';
    if (block && mark != '+' && mark != '-' && at_ < text_.size() && text_[at_] == '\n') ++at_;
  }

  void comment() {
    const size_t close = text_.find("#}", at_ + 2);
    if (close == std::string::npos) throw SyntaxError(place(at_), "the comment does not end");
    const char mark = text_[close - 1];
    at_ = close + 2;
    after_tag(close > 2 ? mark : ' ', true);
  }

  size_t skip_blanks(size_t at) const {
    while (at < text_.size() && is_blank(text_[at])) ++at;
    return at;
  }

  void tag(Token::Kind begin, char mark) {
    const size_t opened = at_;
    push(begin, "");
    at_ += mark == '-' || mark == '+' ? 3 : 2;
    const bool block = begin == Token::Kind::block_begin;
    const std::string_view closing = block ? "%}" : "}}";
    std::vector<char> brackets;
    const size_t first = tokens_.size();
    while (true) {
      at_ = skip_blanks(at_);
      if (at_ >= text_.size()) throw SyntaxError(place(opened), "the tag does not end");
      if (tokens_.size() - first > kTokensOfTag) throw SyntaxError(place(opened), "the tag is too long");
      const std::string_view rest = std::string_view(text_).substr(at_);
      const bool marked = rest[0] == '-' || (rest[0] == '+' && block);
      if (brackets.empty() && rest.substr(marked ? 1 : 0).starts_with(closing)) {
        push(block ? Token::Kind::block_end : Token::Kind::print_end, "");
        at_ += marked ? 3 : 2;
        return after_tag(marked ? rest[0] : ' ', block);
      }
      expression(rest, brackets);
    }
  }

  void expression(std::string_view rest, std::vector<char>& brackets) {
    if (is_digit(rest[0])) return number(rest);
    if (is_word(rest[0])) {
      const size_t end = static_cast<size_t>(std::ranges::find_if_not(rest, is_word) - rest.begin());
      return take(Token::Kind::name, rest.substr(0, end));
    }
    if (rest[0] == '\'' || rest[0] == '"') return string(rest);
    static constexpr std::array<std::string_view, 26> symbols{"//", "**", "==", "!=", "<=", ">=", "+", "-", "*",
                                                              "/",  "%",  "~",  "<",  ">",  "=",  "(", ")", "[",
                                                              "]",  "{",  "}",  ".",  ",",  ":",  "|", ";"};
    const auto* symbol = std::ranges::find_if(symbols, [&](std::string_view s) { return rest.starts_with(s); });
    if (symbol == symbols.end())
      throw SyntaxError(place(at_), fmt::format("the character {} means nothing here", rest[0]));
    if (*symbol == "(" || *symbol == "[" || *symbol == "{") brackets.push_back((*symbol)[0]);
    if (*symbol == ")" || *symbol == "]" || *symbol == "}") close(brackets, (*symbol)[0]);
    take(Token::Kind::symbol, *symbol);
  }

  void close(std::vector<char>& brackets, char bracket) const {
    const char open = bracket == ')' ? '(' : bracket == ']' ? '[' : '{';
    if (brackets.empty() || brackets.back() != open)
      throw SyntaxError(place(at_), fmt::format("the {} closes nothing", bracket));
    brackets.pop_back();
  }

  void number(std::string_view rest) {
    size_t end = 0;
    const auto digits = [&] {
      while (end < rest.size() && (is_digit(rest[end]) || (rest[end] == '_' && is_digit(rest[end - 1])))) ++end;
    };
    digits();
    bool real = false;
    if (end + 1 < rest.size() && rest[end] == '.' && is_digit(rest[end + 1])) {
      real = true;
      ++end;
      digits();
    }
    if (end + 1 < rest.size() && (rest[end] == 'e' || rest[end] == 'E')) {
      const size_t sign = rest[end + 1] == '+' || rest[end + 1] == '-' ? 1 : 0;
      if (end + 1 + sign < rest.size() && is_digit(rest[end + 1 + sign])) {
        real = true;
        end += 1 + sign;
        digits();
      }
    }
    if (end < rest.size() && is_word(rest[end])) throw SyntaxError(place(at_), "the number is not decimal");
    take(real ? Token::Kind::real : Token::Kind::integer, rest.substr(0, end));
    std::erase(tokens_.back().text, '_');
  }

  // A literal as Python's "unicode-escape" reads it.
  void string(std::string_view rest) {
    std::string value;
    size_t i = 1;
    while (i < rest.size() && rest[i] != rest[0]) {
      if (rest[i] == '\\' && i + 1 < rest.size()) {
        i = escape(rest, i + 1, value);
      } else {
        value += rest[i++];
      }
    }
    if (i >= rest.size()) throw SyntaxError(place(at_), "the string does not end");
    push(Token::Kind::string, value);
    at_ += i + 1;
  }

  // Reads the escape behind a backslash at i - 1; the offset behind it.
  size_t escape(std::string_view rest, size_t i, std::string& value) const {
    static constexpr std::string_view letters = "abfnrtv\\'\"", values = "\a\b\f\n\r\t\v\\'\"";
    const size_t which = letters.find(rest[i]);
    if (which != std::string_view::npos) {
      value += values[which];
      return i + 1;
    }
    if (rest[i] == '\n') return i + 1;
    const size_t hex = rest[i] == 'x' ? 2 : rest[i] == 'u' ? 4 : rest[i] == 'U' ? 8 : 0;
    if (hex == 0) {
      if (is_digit(rest[i]) || rest[i] == 'N')
        throw SyntaxError(place(at_), fmt::format("the escape \\{} is not supported", rest[i]));
      value += {'\\', rest[i]};
      return i + 1;
    }
    uint32_t code = 0;
    for (size_t k = 1; k <= hex; ++k) {
      const char c = i + k < rest.size() ? rest[i + k] : ' ';
      if (std::isxdigit(static_cast<unsigned char>(c)) == 0)
        throw SyntaxError(place(at_), "the escape is not complete");
      code = code * 16 + static_cast<uint32_t>(is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      throw SyntaxError(place(at_), "the escape is no character");
    append_utf8(code, value);
    return i + 1 + hex;
  }

  void take(Token::Kind kind, std::string_view spelling) {
    push(kind, std::string(spelling));
    at_ += spelling.size();
  }
  void push(Token::Kind kind, const std::string& text) { tokens_.push_back({kind, text, place(at_)}); }

  // Tokens come in the order of the text, so lines are counted once.
  Place place(size_t at) const {
    for (; counted_ < std::min(at, text_.size()); ++counted_) {
      if (text_[counted_] != '\n') continue;
      ++line_;
      line_begin_ = counted_ + 1;
    }
    return {line_, static_cast<int>(at - std::min(at, line_begin_)) + 1};
  }

  const std::string text_;
  size_t at_ = 0;
  bool trim_ = false;  // the tag before takes white space away
  std::vector<Token> tokens_;
  mutable size_t counted_ = 0, line_begin_ = 0;
  mutable int line_ = 1;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace drover::jinja
