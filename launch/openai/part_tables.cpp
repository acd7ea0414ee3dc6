// Objects within requests for answers: messages, tools, formats.
#include "launch/openai/field_makers.h"

namespace drover::openai {

namespace {

constexpr int64_t kLongest = kMostInt;  // the body's limit comes first
constexpr const char* kNameOfFunction = "_-";

}  // namespace

const FieldTable& message_table() {
  static const FieldTable table{
      "Message",
      {required(one_of("role", {"system", "developer", "user", "assistant", "tool"}, "developer is system")),
       {.name = "content",
        .kind = FieldKind::content,
        .about = "what is said; null where the assistant calls functions",
        .of = &content_part_table()},
       text("name", 1, 64, "of who speaks, where the chat template writes it"),
       objects("tool_calls", 0, kMostTools, &call_table(), "the assistant's calls"),
       text("tool_call_id", 1, 1000, "the call that a tool's message answers")},
      {{"function_call", "write tool_calls"},
       {"audio", "the model reads text"},
       {"refusal", "write it as content", {""}}}};
  return table;
}

const FieldTable& content_part_table() {
  static const FieldTable table{"ContentPart",
                                {required(one_of("type", {"text"}, "the model reads text")),
                                 required(text("text", 0, kLongest, "joined as it is"))}};
  return table;
}

const FieldTable& call_table() {
  static const FieldTable table{
      "ToolCall",
      {text("id", 1, 1000, "what tool_call_id names"), one_of("type", {"function"}, "the kind of tool"),
       required(object("function", &called_function_table(), "what is called")),
       ignored(integer("index", 0, kMostInt, "not used"))}};
  return table;
}

const FieldTable& called_function_table() {
  static const FieldTable table{
      "CalledFunction",
      {required(word("name", kNameOfFunction, "the function")),
       {.name = "arguments", .kind = FieldKind::any, .about = "an object, or a string that holds one as JSON"}}};
  return table;
}

const FieldTable& tool_table() {
  static const FieldTable table{"Tool",
                                {required(one_of("type", {"function"}, "the kind of tool")),
                                 required(object("function", &function_table(), "what may be called"))}};
  return table;
}

const FieldTable& function_table() {
  static const FieldTable table{"Function",
                                {required(word("name", kNameOfFunction, "the function")),
                                 text("description", 0, kLongest, "what it does, for the model"),
                                 object("parameters", nullptr, "a JSON Schema of its arguments"),
                                 boolean("strict", "arguments keep to the schema where a call is forced")}};
  return table;
}

const FieldTable& response_format_table() {
  static const FieldTable table{"ResponseFormat",
                                {required(one_of("type", {"text", "json_object", "json_schema"}, "text: free")),
                                 object("json_schema", &json_schema_table(), "with type json_schema")}};
  return table;
}

const FieldTable& json_schema_table() {
  static const FieldTable table{
      "JsonSchemaFormat",
      {required(word("name", kNameOfFunction, "of the format")), ignored(text("description", 0, kLongest, "not used")),
       required(object("schema", nullptr, "the JSON Schema that the answer keeps to")),
       boolean("strict", "taken; the answer keeps to the schema either way")}};
  return table;
}

const FieldTable& tool_choice_table() {
  static const FieldTable table{"ToolChoice",
                                {required(one_of("type", {"function"}, "the kind of tool")),
                                 required(object("function", &chosen_function_table(), "which one is called"))}};
  return table;
}

const FieldTable& chosen_function_table() {
  static const FieldTable table{"ChosenFunction", {required(word("name", kNameOfFunction, "the function"))}};
  return table;
}

}  // namespace drover::openai
