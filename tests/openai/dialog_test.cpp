// Messages, tools, formats: as clients' libraries write them, and what is refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/openai/requests.h"

namespace drover::openai {
namespace {

using testing::HasSubstr;

const RequestDefaults kDefaults{.vocab_size = 1000};

OrderedJson said(const std::string& role, const OrderedJson& content) { return {{"role", role}, {"content", content}}; }

OrderedJson one(const OrderedJson& value) { return OrderedJson::array({value}); }

const OrderedJson kTools = OrderedJson::parse(R"([{"type": "function", "function": {"name": "get_weather",
  "description": "Weather of a place",
  "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}}])");

ChatRequest chat(const OrderedJson& messages, const OrderedJson& more = OrderedJson::object()) {
  OrderedJson body{{"messages", messages}};
  body.update(more);
  return parse_chat(body.dump(), kDefaults);
}

std::string param_of(const OrderedJson& messages, const OrderedJson& more = OrderedJson::object()) {
  try {
    chat(messages, more);
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 400u);
    return error.param;
  }
  return "nothing was refused";
}

TEST(Dialogs, ContentIsTextOrParts) {
  const ChatRequest request = chat(
      {said("developer", "Be brief."),
       said("user", {{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"text", "b"}}}), said("assistant", "")});
  EXPECT_EQ(request.dialog.messages,
            (std::vector<Message>{{"system", "Be brief."}, {"user", "ab"}, {"assistant", ""}}));
  EXPECT_EQ(param_of(one(said("user", nullptr))), "messages[0].content");
  EXPECT_EQ(param_of(one(said("assistant", nullptr))), "messages[0].content");
  EXPECT_EQ(param_of(one(said("user", 5))), "messages[0].content");
  EXPECT_EQ(param_of(one(said("user", one("a")))), "messages[0].content[0]");
  for (const char* type : {"image_url", "input_audio", "file", "refusal"}) {
    const OrderedJson part{{"type", type}, {"text", "a"}};
    EXPECT_EQ(param_of(one(said("user", OrderedJson::array({part})))), "messages[0].content[0].type");
  }
  EXPECT_EQ(param_of(one(said("user", OrderedJson::array({{{"type", "text"}}})))), "messages[0].content[0].text");
}

TEST(Dialogs, RolesAndLists) {
  EXPECT_EQ(param_of(OrderedJson::array()), "messages");
  EXPECT_EQ(param_of(one(5)), "messages[0]");
  EXPECT_EQ(param_of({said("user", "a"), said("ipython", "b")}), "messages[1].role");
  EXPECT_EQ(param_of(one({{"content", "b"}})), "messages[0].role");
  OrderedJson named = said("user", "a");
  named["name"] = "Ann";
  EXPECT_EQ(chat(one(named)).dialog.messages[0].more, (OrderedJson{{"name", "Ann"}}));
}

// The second turn as openai-python's model_dump() gives the first one's answer back, and as the AI SDK writes it.
TEST(Dialogs, SecondTurnOfAToolLoop) {
  const OrderedJson call = OrderedJson::parse(
      R"({"id": "call_1", "type": "function",
          "function": {"name": "get_weather", "arguments": "{\"place\": \"Rome\"}"}})");
  OrderedJson dumped{{"content", nullptr},
                     {"refusal", nullptr},
                     {"role", "assistant"},
                     {"annotations", nullptr},
                     {"audio", nullptr},
                     {"function_call", nullptr},
                     {"tool_calls", OrderedJson::array({call})}};
  OrderedJson answer = said("tool", "sunny");
  answer["tool_call_id"] = "call_1";
  const ChatRequest request = chat({said("user", "Weather?"), dumped, answer}, {{"tools", kTools}});
  const Message& called = request.dialog.messages[1];
  EXPECT_TRUE(called.more["content"].is_null());
  const OrderedJson& function = called.more["tool_calls"][0]["function"];
  EXPECT_EQ(function["name"], "get_weather");
  EXPECT_EQ(function["arguments"], (OrderedJson{{"place", "Rome"}}));
  EXPECT_EQ(called.more["tool_calls"][0]["id"], "call_1");
  EXPECT_EQ(request.dialog.messages[2], (Message{"tool", "sunny", OrderedJson{{"tool_call_id", "call_1"}}}));
  EXPECT_TRUE(request.may_call());

  OrderedJson sdk = said("assistant", "");
  sdk["tool_calls"] = OrderedJson::array({call});
  OrderedJson parts = said("tool", OrderedJson::array({{{"type", "text"}, {"text", "sunny"}}}));
  parts["tool_call_id"] = "call_1";
  EXPECT_EQ(chat({said("user", "Weather?"), sdk, parts}).dialog.messages[2].content, "sunny");
}

TEST(Dialogs, WrongCalls) {
  OrderedJson answer = said("tool", "sunny");
  EXPECT_EQ(param_of(one(answer)), "messages[0].tool_call_id");
  answer["tool_call_id"] = nullptr;
  EXPECT_EQ(param_of(one(answer)), "messages[0].tool_call_id");
  answer["tool_call_id"] = 5;
  EXPECT_EQ(param_of(one(answer)), "messages[0].tool_call_id");
  const auto called = [](const OrderedJson& function) {
    OrderedJson message = said("assistant", nullptr);
    message["tool_calls"] = OrderedJson::array({{{"id", "1"}, {"type", "function"}, {"function", function}}});
    return OrderedJson::array({message});
  };
  EXPECT_EQ(param_of(called({{"arguments", "{}"}})), "messages[0].tool_calls[0].function.name");
  const std::string arguments = "messages[0].tool_calls[0].function.arguments";
  for (const OrderedJson& wrong :
       {OrderedJson("{"), OrderedJson("[1]"), OrderedJson(5), OrderedJson("{\"a\":1,\"a\":1}")})
    EXPECT_EQ(param_of(called({{"name", "f"}, {"arguments", wrong}})), arguments) << wrong;
  for (const OrderedJson& none : {OrderedJson(""), OrderedJson("{}"), OrderedJson::object(), OrderedJson()}) {
    const ChatRequest request = chat(called({{"name", "f"}, {"arguments", none}}));
    EXPECT_EQ(request.dialog.messages[0].more["tool_calls"][0]["function"]["arguments"], OrderedJson::object());
  }
  OrderedJson user = called({{"name", "f"}});
  user[0].update({{"role", "user"}, {"content", "a"}});
  EXPECT_EQ(param_of(user), "messages[0].tool_calls");
}

TEST(Dialogs, Tools) {
  const OrderedJson messages = one(said("user", "a"));
  EXPECT_EQ(chat(messages, {{"tools", kTools}}).dialog.tools, kTools);
  EXPECT_TRUE(chat(messages, {{"tools", OrderedJson::array()}}).dialog.tools.is_null());
  EXPECT_FALSE(chat(messages, {{"tools", kTools}, {"tool_choice", "none"}}).may_call());
  const auto tool = [](const OrderedJson& function) {
    return OrderedJson{{"tools", OrderedJson::array({{{"type", "function"}, {"function", function}}})}};
  };
  for (const OrderedJson& name : {OrderedJson("a b"), OrderedJson(""), OrderedJson(std::string(65, 'a')),
                                  OrderedJson("<|eot_id|>"), OrderedJson("é"), OrderedJson(5), OrderedJson()})
    EXPECT_EQ(param_of(messages, tool({{"name", name}})), "tools[0].function.name") << name;
  EXPECT_EQ(param_of(messages, tool({{"name", "f"}, {"parameters", "{}"}})), "tools[0].function.parameters");
  EXPECT_EQ(param_of(messages, {{"tools", {{{"type", "code"}}}}}), "tools[0].type");
  EXPECT_EQ(param_of(messages, {{"tools", std::vector<OrderedJson>(129, kTools[0])}}), "tools");
}

TEST(Dialogs, ToolChoice) {
  const OrderedJson messages = one(said("user", "a"));
  const auto choice = [&](const OrderedJson& value) {
    return chat(messages, {{"tools", kTools}, {"tool_choice", value}}).tool_choice;
  };
  EXPECT_EQ(choice("auto").kind, ToolChoice::Kind::automatic);
  EXPECT_EQ(choice("required").kind, ToolChoice::Kind::required);
  const auto named = [](const char* name) { return OrderedJson{{"type", "function"}, {"function", {{"name", name}}}}; };
  EXPECT_EQ(choice(named("get_weather")).kind, ToolChoice::Kind::named);
  EXPECT_EQ(choice(named("get_weather")).name, "get_weather");
  EXPECT_EQ(param_of(messages, {{"tools", kTools}, {"tool_choice", named("other")}}), "tool_choice");
  EXPECT_EQ(param_of(messages, {{"tools", kTools}, {"tool_choice", "sometimes"}}), "tool_choice");
  EXPECT_EQ(param_of(messages, {{"tools", kTools}, {"tool_choice", {{"type", "allowed_tools"}}}}), "tool_choice.type");
  EXPECT_EQ(param_of(messages, {{"tool_choice", "required"}}), "tool_choice");
}

TEST(Dialogs, ResponseFormat) {
  const OrderedJson messages = one(said("user", "a"));
  const auto format = [&](const OrderedJson& value) {
    return chat(messages, {{"response_format", value}}).response_format;
  };
  EXPECT_EQ(format({{"type", "text"}}).kind, ResponseFormat::Kind::text);
  EXPECT_EQ(format({{"type", "json_object"}}).kind, ResponseFormat::Kind::json_object);
  const OrderedJson schema{{"type", "object"}, {"required", {"b", "a"}}};
  const ResponseFormat described =
      format({{"type", "json_schema"}, {"json_schema", {{"name", "n"}, {"schema", schema}, {"strict", true}}}});
  EXPECT_EQ(described.kind, ResponseFormat::Kind::json_schema);
  EXPECT_EQ(described.name, "n");
  EXPECT_EQ(described.schema, schema);
  EXPECT_TRUE(described.strict);
  const auto param = [&](const OrderedJson& value) { return param_of(messages, {{"response_format", value}}); };
  EXPECT_EQ(param({{"type", "xml"}}), "response_format.type");
  EXPECT_EQ(param({{"type", "json_schema"}}), "response_format.json_schema");
  EXPECT_EQ(param({{"type", "json_schema"}, {"json_schema", {{"name", "n"}}}}), "response_format.json_schema.schema");
  EXPECT_EQ(param({{"type", "json_schema"}, {"json_schema", {{"name", "a b"}, {"schema", schema}}}}),
            "response_format.json_schema.name");
}

TEST(Dialogs, Prefill) {
  const OrderedJson messages{said("user", "a"), said("assistant", "b")};
  const Dialog open = chat(messages, {{"continue_final_message", true}}).dialog;
  EXPECT_TRUE(open.continue_final_message);
  EXPECT_FALSE(open.add_generation_prompt);
  EXPECT_FALSE(chat(messages, {{"add_generation_prompt", false}}).dialog.add_generation_prompt);
  EXPECT_EQ(param_of(messages, {{"continue_final_message", true}, {"add_generation_prompt", true}}),
            "add_generation_prompt");
  EXPECT_EQ(param_of(one(said("user", "a")), {{"continue_final_message", true}}), "continue_final_message");
}

}  // namespace
}  // namespace drover::openai
