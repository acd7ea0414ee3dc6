// Messages and tools, as chat templates take them.
#include "launch/openai/requests.h"

namespace drover::openai {

namespace {

std::string joined_parts(const OrderedJson& parts, const std::string& path) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string place = fmt::format("{}[{}]", path, i);
    if (!parts[i].is_object())
      throw invalid_request(place, fmt::format("'{}' must be {{\"type\": \"text\", \"text\": …}}", place));
    const Fields part(parts[i], content_part_table(), place);
    part.text("type");
    text += *part.text("text");
    part.expect_all_read();
  }
  return text;
}

// Templates want the arguments as an object, OpenAI writes them as a string of JSON.
OrderedJson arguments_of(const Fields& function) {
  const OrderedJson* value = function.json("arguments");
  const std::string path = function.path_of("arguments");
  if (!value) return OrderedJson::object();
  OrderedJson object = *value;
  if (value->is_string()) {
    const std::string text = value->get<std::string>();
    if (text.empty()) return OrderedJson::object();
    try {
      object = parse_ordered_json(text, "'" + path + "'");
    } catch (const Error& error) {
      throw api_error_of(error, path);
    }
  }
  if (!object.is_object())
    throw invalid_request(path, fmt::format("'{}' must be an object, or a string that holds one as JSON", path));
  return object;
}

OrderedJson calls_of(const OrderedJson& list, const std::string& path) {
  OrderedJson calls = OrderedJson::array();
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string place = fmt::format("{}[{}]", path, i);
    const Fields call(list[i], call_table(), place);
    OrderedJson out = OrderedJson::object();
    if (const auto id = call.text("id")) out["id"] = *id;
    out["type"] = call.text("type").value_or("function");
    const Fields function(*call.json("function"), called_function_table(), place + ".function");
    out["function"] = {{"name", *function.text("name")}, {"arguments", arguments_of(function)}};
    function.expect_all_read();
    call.expect_all_read();
    calls.push_back(std::move(out));
  }
  return calls;
}

void refuse_unless(bool holds, const std::string& path, const char* message) {
  if (!holds) throw invalid_request(path, fmt::format("'{}' {}", path, message));
}

Message message_of(const OrderedJson& object, const std::string& place) {
  const Fields fields(object, message_table(), place);
  Message message{.role = *fields.text("role"), .content = ""};
  OrderedJson more = OrderedJson::object();
  const OrderedJson *content = fields.json("content"), *calls = fields.json("tool_calls");
  const bool has_calls = calls && !calls->empty();
  if (!content) {
    refuse_unless(has_calls, fields.path_of("content"),
                  "is missing or null, which only a message of the assistant with 'tool_calls' may be");
    more["content"] = nullptr;
  } else {
    message.content =
        content->is_string() ? content->get<std::string>() : joined_parts(*content, fields.path_of("content"));
  }
  if (const auto name = fields.text("name")) more["name"] = *name;
  if (has_calls) {
    refuse_unless(message.role == "assistant", fields.path_of("tool_calls"), "stands only in the assistant's messages");
    more["tool_calls"] = calls_of(*calls, fields.path_of("tool_calls"));
  }
  const auto answered = fields.text("tool_call_id");
  const std::string path = fields.path_of("tool_call_id");
  if (message.role == "tool") refuse_unless(answered.has_value(), path, "must be the id of the call that is answered");
  if (answered) {
    refuse_unless(message.role == "tool", path, "stands only in messages of the role tool");
    more["tool_call_id"] = *answered;
  }
  if (message.role == "developer") message.role = "system";
  if (!more.empty()) message.more = std::move(more);
  fields.expect_all_read();
  return message;
}

OrderedJson tools_of(const OrderedJson& list) {
  if (list.empty()) return nullptr;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string place = fmt::format("tools[{}]", i);
    const Fields tool(list[i], tool_table(), place);
    tool.text("type");
    const Fields function(*tool.json("function"), function_table(), place + ".function");  // the template reads it
    tool.expect_all_read();
  }
  return list;
}

}  // namespace

Dialog dialog_of(const Fields& fields) {
  Dialog dialog;
  const OrderedJson& messages = *fields.json("messages");
  for (size_t i = 0; i < messages.size(); ++i)
    dialog.messages.push_back(message_of(messages[i], fmt::format("messages[{}]", i)));
  if (const OrderedJson* tools = fields.json("tools")) dialog.tools = tools_of(*tools);
  dialog.continue_final_message = fields.boolean("continue_final_message").value_or(false);
  const auto prompted = fields.boolean("add_generation_prompt");
  dialog.add_generation_prompt = prompted.value_or(!dialog.continue_final_message);
  dialog.add_special_tokens = fields.boolean("add_special_tokens").value_or(false);
  if (!dialog.continue_final_message) return dialog;
  refuse_unless(!dialog.add_generation_prompt, "add_generation_prompt",
                "must be false where 'continue_final_message' is true");
  const Message& last = dialog.messages.back();
  refuse_unless(last.role == "assistant" && !last.more.contains("tool_calls"), "continue_final_message",
                "needs the last message to be the assistant's, without 'tool_calls'");
  return dialog;
}

}  // namespace drover::openai
