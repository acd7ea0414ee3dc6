// A template's source as tokens, with Jinja's treatment of white space as transformers sets it: trim_blocks,
// lstrip_blocks, `-` and `+` marks, no newline at the end, CRLF as LF. Source: Jinja2's documentation ("White space
// control"), huggingface/transformers (chat_template_utils).
#pragma once
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace drover::jinja {

struct Place {
  int line = 1, column = 1;  // from 1; columns count bytes
};

struct Token {
  enum class Kind : uint8_t {
    data,  // text between tags
    print_begin,
    print_end,  // {{ }}
    block_begin,
    block_end,  // {% %}
    name,
    string,
    integer,
    real,
    symbol,  // an operator or a bracket
    end,     // of the source
  };
  Kind kind = Kind::end;
  std::string text;  // a string's value, otherwise the spelling
  Place place;
};

// A source that cannot be read, or that asks for what is not supported. Template adds the file.
class SyntaxError : public std::runtime_error {
 public:
  SyntaxError(const Place& where, const std::string& what) : std::runtime_error(what), place(where) {}
  Place place;
};

// The last token is Kind::end. SyntaxError for tags that are not closed and characters that mean nothing.
std::vector<Token> tokenize(std::string_view source);

}  // namespace drover::jinja
