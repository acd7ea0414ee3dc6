// POST /v1/chat/completions.
#include <algorithm>

#include "launch/openai/requests.h"

namespace drover::openai {

namespace {

bool has_function(const OrderedJson& tools, const std::string& name) {
  return std::any_of(tools.begin(), tools.end(),
                     [&](const OrderedJson& tool) { return tool["function"]["name"] == name; });
}

ToolChoice tool_choice_of(const Fields& fields, const OrderedJson& tools) {
  const OrderedJson* value = fields.json("tool_choice");
  ToolChoice choice;
  if (!value) return choice;
  if (value->is_string()) {
    const std::string word = value->get<std::string>();
    if (word == "none") choice.kind = ToolChoice::Kind::none;
    if (word == "required") choice.kind = ToolChoice::Kind::required;
  } else {
    const Fields object(*value, tool_choice_table(), "tool_choice");
    object.text("type");
    const Fields function(*object.json("function"), chosen_function_table(), "tool_choice.function");
    choice = {ToolChoice::Kind::named, *function.text("name")};
    function.expect_all_read();
    object.expect_all_read();
  }
  const bool forced = choice.kind == ToolChoice::Kind::required || choice.kind == ToolChoice::Kind::named;
  if (forced && tools.is_null()) throw invalid_request("tool_choice", "'tool_choice' asks for a call, without 'tools'");
  if (choice.kind == ToolChoice::Kind::named && !has_function(tools, choice.name))
    throw invalid_request("tool_choice",
                          fmt::format("'tool_choice' names \"{}\", which is none of 'tools'", choice.name));
  return choice;
}

ResponseFormat response_format_of(const Fields& fields) {
  ResponseFormat format;
  const OrderedJson* value = fields.json("response_format");
  if (!value) return format;
  const Fields object(*value, response_format_table(), "response_format");
  const std::string type = *object.text("type");
  const OrderedJson* schema = object.json("json_schema");
  object.expect_all_read();
  if (type == "json_object") format.kind = ResponseFormat::Kind::json_object;
  if (type != "json_schema") return format;
  format.kind = ResponseFormat::Kind::json_schema;
  const std::string path = "response_format.json_schema";
  if (!schema) throw invalid_request(path, fmt::format("'{}' is missing", path));
  const Fields described(*schema, json_schema_table(), path);
  format.name = *described.text("name");
  format.schema = *described.json("schema");
  format.strict = described.boolean("strict").value_or(false);
  described.expect_all_read();
  return format;
}

std::optional<int64_t> logprobs_of(const Fields& fields) {
  const bool wanted = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs");
  if (top.value_or(0) > 0 && !wanted)
    throw invalid_request("top_logprobs", "'top_logprobs' is allowed only where 'logprobs' is true");
  return wanted ? std::optional(top.value_or(0)) : std::nullopt;
}

}  // namespace

ChatRequest parse_chat(std::string_view body, const RequestDefaults& defaults) {
  const OrderedJson json = parse_body(body);
  const Fields fields(json, chat_table());
  ChatRequest request;
  request.model = fields.text("model").value_or("");
  request.dialog = dialog_of(fields);
  request.tool_choice = tool_choice_of(fields, request.dialog.tools);
  request.parallel_tool_calls = fields.boolean("parallel_tool_calls").value_or(true);
  request.response_format = response_format_of(fields);
  request.options = answer_options(fields, defaults);
  request.options.sampling.logprobs = logprobs_of(fields);
  fields.expect_all_read();
  return request;
}

}  // namespace drover::openai
