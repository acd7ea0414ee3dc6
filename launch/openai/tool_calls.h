// Calls of functions in an answer's text, as Llama 3.1 writes them: {"name": …, "parameters": {…}}, where an answer has
// several with ; between them, and <|python_tag|> in front where it is shown. Source: Meta, "Llama 3.1: model cards and
// prompt formats", custom tool calling.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace drover::openai {

struct ToolCall {
  int64_t index = 0;  // in the answer
  std::string id, name;
  std::string arguments;  // an object of JSON in the model's own words
};

// Follows one object byte by byte, for as long as it may become a call: of its keys, name is a string, parameters (or
// arguments) an object, and type "function"; no other may stand there.
class CallScanner {
 public:
  enum class State : uint8_t { open, complete, no_call };
  State take(char byte);
  // Once complete; no_call where the text of name or arguments is not JSON.
  State read(ToolCall& call) const;

 private:
  enum class Expected : uint8_t { object, key, key_or_end, colon, value, comma_or_end };
  State take_structure(char byte);
  State take_string(char byte);
  void take_nested(char byte);
  State begin_value(char byte);
  State end_value();

  std::string text_;
  Expected expected_ = Expected::object;
  bool in_string_ = false, escaped_ = false;
  size_t depth_ = 0;                           // of objects and lists within the arguments
  size_t begin_ = 0;                           // of the string or object that is read, in text_
  std::string key_, name_, arguments_, type_;  // as JSON
};

// Splits an answer's text into calls and content. Text is held back while it may be a call; a call comes once it is
// complete. What turns out to be none is content as it was written; so is whatever follows a call and is no call.
class ToolCallParser {
 public:
  struct Settings {
    std::string id;       // of the answer, unlike all others: the calls' ids are made from it
    bool several = true;  // false: the answer ends behind the first call
  };
  explicit ToolCallParser(Settings settings) : settings_(std::move(settings)) {}

  struct Piece {
    std::string content;
    std::vector<ToolCall> calls;
    bool ended = false;  // there is a call and no other may follow: what comes is dropped
  };
  Piece push(std::string_view text);
  Piece finish();  // the end of the text

  int64_t calls() const { return calls_; }

 private:
  enum class State : uint8_t { front, in_call, between, content, ended };
  void take(char byte, Piece& out);
  void take_in_call(char byte, Piece& out);
  void give_up(Piece& out);

  Settings settings_;
  State state_ = State::front;
  std::string held_;  // since the last call, or the beginning
  CallScanner scanner_;
  int64_t calls_ = 0;
};

}  // namespace drover::openai
