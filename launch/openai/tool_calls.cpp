#include "launch/openai/tool_calls.h"

#include <algorithm>

#include "kernels/base/json.h"

namespace drover::openai {

namespace {

constexpr std::string_view kPythonTag = "<|python_tag|>";

constexpr size_t kLongestFront = 256;  // bytes in front of a call

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_between(char c) { return is_space(c) || c == ';'; }

std::string_view without_front(std::string_view text, bool (*dropped)(char)) {
  const auto first = std::ranges::find_if_not(text, dropped);
  return text.substr(static_cast<size_t>(first - text.begin()));
}

}  // namespace

CallScanner::State CallScanner::take(char byte) {
  text_ += byte;
  if (in_string_) return take_string(byte);
  if (depth_ > 0) {
    take_nested(byte);
    return depth_ > 0 ? State::open : end_value();
  }
  return is_space(byte) ? State::open : take_structure(byte);
}

CallScanner::State CallScanner::take_string(char byte) {
  if (escaped_) {
    escaped_ = false;
    return State::open;
  }
  if (byte == '\\') escaped_ = true;
  if (byte != '"') return State::open;
  in_string_ = false;
  if (depth_ > 0) return State::open;
  if (expected_ == Expected::value) return end_value();
  key_ = text_.substr(begin_);
  expected_ = Expected::colon;
  const bool known = key_ == "\"name\"" || key_ == "\"parameters\"" || key_ == "\"arguments\"" || key_ == "\"type\"";
  return known ? State::open : State::no_call;
}

void CallScanner::take_nested(char byte) {
  if (byte == '"') in_string_ = true;
  if (byte == '{' || byte == '[') ++depth_;
  if (byte == '}' || byte == ']') --depth_;
}

CallScanner::State CallScanner::take_structure(char byte) {
  const auto to = [&](Expected next) {
    expected_ = next;
    return State::open;
  };
  switch (expected_) {
    case Expected::object: return byte == '{' ? to(Expected::key_or_end) : State::no_call;
    case Expected::colon: return byte == ':' ? to(Expected::value) : State::no_call;
    case Expected::value: return begin_value(byte);
    case Expected::comma_or_end:
      if (byte == ',') return to(Expected::key);
      if (byte == '}') return name_.empty() || arguments_.empty() ? State::no_call : State::complete;
      return State::no_call;
    default: break;
  }
  if (byte != '"') return State::no_call;  // an empty object is no call
  in_string_ = true;
  begin_ = text_.size() - 1;
  return State::open;
}

CallScanner::State CallScanner::begin_value(char byte) {
  begin_ = text_.size() - 1;
  const bool object = key_ == "\"parameters\"" || key_ == "\"arguments\"";
  if (byte != (object ? '{' : '"')) return State::no_call;
  if (object) {
    depth_ = 1;
  } else {
    in_string_ = true;
  }
  return State::open;
}

CallScanner::State CallScanner::end_value() {
  std::string& value = key_ == "\"name\"" ? name_ : key_ == "\"type\"" ? type_ : arguments_;
  if (!value.empty()) return State::no_call;  // twice
  value = text_.substr(begin_);
  expected_ = Expected::comma_or_end;
  return key_ == "\"type\"" && value != "\"function\"" ? State::no_call : State::open;
}

CallScanner::State CallScanner::read(ToolCall& call) const {
  try {
    call.name = parse_json(name_, "a call's name").get<std::string>();
    parse_json(arguments_, "a call's arguments");
  } catch (const Error&) {
    return State::no_call;
  }
  call.arguments = arguments_;
  return call.name.empty() ? State::no_call : State::complete;
}

ToolCallParser::Piece ToolCallParser::push(std::string_view text) {
  Piece out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (state_ == State::content) {
      out.content += text.substr(i);
      break;
    }
    if (state_ == State::ended) break;
    take(text[i], out);
  }
  out.ended = state_ == State::ended;
  return out;
}

ToolCallParser::Piece ToolCallParser::finish() {
  Piece out;
  if (state_ == State::between && std::ranges::all_of(held_, is_between)) held_.clear();
  if (!held_.empty()) give_up(out);
  out.ended = state_ == State::ended;
  return out;
}

// In front of a call there may be white space and the tag, behind one semicolons too.
void ToolCallParser::take(char byte, Piece& out) {
  held_ += byte;
  if (state_ == State::in_call) return take_in_call(byte, out);
  std::string_view rest = without_front(held_, state_ == State::between ? is_between : is_space);
  const bool tagged = rest.starts_with(kPythonTag);
  if (tagged) rest = without_front(rest.substr(kPythonTag.size()), is_space);
  if (rest == "{") {
    state_ = State::in_call;
    scanner_ = CallScanner();
    return take_in_call(byte, out);
  }
  const bool open = rest.empty() || (!tagged && kPythonTag.starts_with(rest));
  if (!open || held_.size() > kLongestFront) give_up(out);
}

void ToolCallParser::take_in_call(char byte, Piece& out) {
  CallScanner::State state = scanner_.take(byte);
  if (state == CallScanner::State::open) return;
  ToolCall call{.index = calls_};
  if (state == CallScanner::State::complete) state = scanner_.read(call);
  if (state == CallScanner::State::no_call) return give_up(out);
  call.id = "call_" + settings_.id + std::to_string(calls_++);
  out.calls.push_back(std::move(call));
  held_.clear();
  state_ = settings_.several ? State::between : State::ended;
}

void ToolCallParser::give_up(Piece& out) {
  out.content += held_;
  held_.clear();
  state_ = State::content;
}

}  // namespace drover::openai
