// The parts of parsing that statements and expressions share: a position in the tokens.
#pragma once
#include <string_view>

#include "data/jinja/nodes.h"

namespace drover::jinja {

class Tokens {
 public:
  explicit Tokens(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  const Token& next() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_.back(); }
  bool is(Token::Kind kind, std::string_view text = {}) const {
    return peek().kind == kind && (text.empty() || peek().text == text);
  }
  bool is_symbol(std::string_view text) const { return is(Token::Kind::symbol, text); }
  bool is_name(std::string_view text) const { return is(Token::Kind::name, text); }
  bool take_symbol(std::string_view text);
  bool take_name(std::string_view text);
  void expect_symbol(std::string_view text);
  void expect_name(std::string_view text);
  void expect(Token::Kind kind, const char* what);
  std::string name(const char* what);  // SyntaxError where none stands here

  // Counts how deep brackets and operators are nested, by its lifetime.
  class Deeper {
   public:
    explicit Deeper(Tokens& tokens);
    ~Deeper() { --tokens_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    Tokens& tokens_;
  };

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

ExpressionPtr parse_expression(Tokens& tokens, bool conditional = true);
ExpressionPtr parse_tuple(Tokens& tokens);      // "a, b": a tuple; "a": a
CallArguments parse_arguments(Tokens& tokens);  // from the ( on
FilterCall parse_filter(Tokens& tokens);        // behind the |

}  // namespace drover::jinja
