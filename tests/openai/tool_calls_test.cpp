// Calls in an answer's text: found, kept apart from content, and the same however the text comes in pieces.
#include "launch/openai/tool_calls.h"

#include <gtest/gtest.h>

#include "kernels/base/json.h"

namespace drover::openai {
namespace {

struct Split {
  std::string content;
  std::vector<std::pair<std::string, std::string>> calls;  // name, arguments
  bool operator==(const Split&) const = default;
};
void PrintTo(const Split& split, std::ostream* out) {
  *out << "content <" << split.content << ">";
  for (const auto& [name, arguments] : split.calls) *out << " " << name << arguments;
}

void add(const ToolCallParser::Piece& piece, Split& split) {
  split.content += piece.content;
  for (const ToolCall& call : piece.calls) {
    EXPECT_EQ(call.index, static_cast<int64_t>(split.calls.size()));
    EXPECT_EQ(call.id, "call_x" + std::to_string(call.index));
    split.calls.emplace_back(call.name, call.arguments);
  }
}

Split split_at(const std::string& text, std::vector<size_t> borders, bool several = true) {
  ToolCallParser parser({"x", several});
  Split split;
  borders.push_back(text.size());
  size_t begin = 0;
  for (const size_t end : borders) {
    add(parser.push(std::string_view(text).substr(begin, end - begin)), split);
    begin = end;
  }
  add(parser.finish(), split);
  EXPECT_EQ(parser.calls(), static_cast<int64_t>(split.calls.size()));
  return split;
}

// Whole, cut once anywhere, and byte by byte.
Split split(const std::string& text, bool several = true) {
  const Split whole = split_at(text, {}, several);
  std::vector<size_t> all;
  for (size_t i = 0; i < text.size(); ++i) {
    EXPECT_EQ(split_at(text, {i}, several), whole) << i;
    all.push_back(i);
  }
  EXPECT_EQ(split_at(text, all, several), whole);
  return whole;
}

void expect_content(const std::string& text) { EXPECT_EQ(split(text), (Split{text, {}})); }

TEST(ToolCalls, One) {
  const Split call{"", {{"get_weather", R"({"place": "Rome", "days": 3})"}}};
  EXPECT_EQ(split(R"({"name": "get_weather", "parameters": {"place": "Rome", "days": 3}})"), call);
  EXPECT_EQ(split(R"(<|python_tag|>{"name": "get_weather", "parameters": {"place": "Rome", "days": 3}})"), call);
  EXPECT_EQ(split("\n\n<|python_tag|> {\"type\": \"function\",\n \"name\":\"get_weather\" , "
                  "\"arguments\" : {\"place\": \"Rome\", \"days\": 3} } \n"),
            call);
  EXPECT_EQ(split(R"({"parameters": {"place": "Rome", "days": 3}, "name": "get_weather"})"), call);
}

TEST(ToolCalls, ArgumentsAreTheModelsOwnText) {
  const std::string arguments = R"({ "a":[1, {"b}":"\"]}\\"}],"é\u00e9" : "{" ,"n":1.50e1})";
  EXPECT_EQ(split(R"({"name": "caf\u00e9", "parameters": )" + arguments + "}"), (Split{"", {{"café", arguments}}}));
}

TEST(ToolCalls, Several) {
  const std::string one = R"({"name": "a", "parameters": {}})", two = R"({"name": "b", "parameters": {"x": ";"}})";
  const Split both{"", {{"a", "{}"}, {"b", R"({"x": ";"})"}}};
  EXPECT_EQ(split(one + ";" + two), both);
  EXPECT_EQ(split(one + "; " + two + ";\n"), both);
  EXPECT_EQ(split(one + "\n" + two), both);
  EXPECT_EQ(split("<|python_tag|>" + one + "; <|python_tag|>" + two), both);
  EXPECT_EQ(split(one + ";" + two, false), (Split{"", {{"a", "{}"}}}));
  ToolCallParser parser({"x", false});
  EXPECT_FALSE(parser.push("{\"name\": \"a\", \"parameters\": {}").ended);
  EXPECT_TRUE(parser.push("}; ").ended);
  EXPECT_TRUE(parser.finish().ended);
}

TEST(ToolCalls, WhatIsNoCallIsContentUnchanged) {
  for (const std::string& text : std::vector<std::string>{
           "",
           " ",
           "Hello",
           "  Hello {",
           "{",
           "{}",
           "{ }",
           "[1]",
           R"({"name": "a"})",
           R"({"parameters": {}})",
           R"({"name": "a", "parameters": {})",
           R"({"name": "a", "parameters": [1]})",
           R"({"name": 5, "parameters": {}})",
           R"({"name": "", "parameters": {}})",
           R"({"name": "a", "parameters": {"x": 1,}})",
           R"({"name": "a", "parameters": {"x": [}})",
           R"({"name": "a", "parameters": {}, "age": 3})",
           R"({"name": "Bob", "age": 3})",
           R"({"name": "a", "name": "b", "parameters": {}})",
           R"({"type": "object", "name": "a", "parameters": {}})",
           R"({"name": "a\x", "parameters": {}})",
           R"({'name': 'a'})",
           R"({"name" "a"})",
           R"({"name": "a";)",
           "<|python_tag|>print(1)",
           "<|python",
           "<|python_tag|>",
           "<|python_tag|><|python_tag|>{}",
           "<b>",
           "; {}",
           "{\"name\": \"a\", \"parameters\": " + std::string(70, '[') + std::string(70, ']') + "}",
           std::string(300, '\n') + R"({"name": "a", "parameters": {}})"}) {
    SCOPED_TRACE(text);
    expect_content(text);
  }
}

TEST(ToolCalls, WhatFollowsACallIsContent) {
  const std::string call = R"({"name": "a", "parameters": {}})";
  EXPECT_EQ(split(call + "\nDone."), (Split{"\nDone.", {{"a", "{}"}}}));
  EXPECT_EQ(split(call + "; {\"name\": "), (Split{"; {\"name\": ", {{"a", "{}"}}}));
  EXPECT_EQ(split(call + " <|py"), (Split{" <|py", {{"a", "{}"}}}));
  EXPECT_EQ(split(call + "; x; " + call), (Split{"; x; " + call, {{"a", "{}"}}}));
}

TEST(ToolCalls, ContentIsNotHeldBack) {
  ToolCallParser parser({"x"});
  EXPECT_EQ(parser.push("{\"name").content, "");
  EXPECT_EQ(parser.push("s\": 1").content, "{\"names\": 1");
  EXPECT_EQ(parser.push("}").content, "}");
}

// Long arguments take time in proportion to their length.
TEST(ToolCalls, LongArguments) {
  ToolCallParser parser({"x"});
  parser.push(R"({"name": "write", "parameters": {"text": ")");
  for (int i = 0; i < 500'000; ++i) parser.push("abcd");
  const ToolCallParser::Piece piece = parser.push("\"}}");
  ASSERT_EQ(piece.calls.size(), 1u);
  EXPECT_EQ(parse_json(piece.calls[0].arguments, "arguments")["text"].get<std::string>().size(), 2'000'000u);
}

}  // namespace
}  // namespace drover::openai
