#include "data/formats/messages.h"

#include "data/formats/fields.h"
#include "kernels/base/error.h"

namespace drover {

namespace {

std::string content_of(const OrderedJson& content) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) wrong("\"content\" must be a string, or a list of {\"type\": \"text\", \"text\": …}");
  std::string text;
  for (const OrderedJson& part : content) {
    if (!part.is_object() || part.value("type", "") != "text" || !part.contains("text") || !part["text"].is_string())
      wrong("a part of \"content\" is not {\"type\": \"text\", \"text\": …}");
    text += part["text"].get<std::string>();
  }
  return text;
}

// The calls with their arguments as an object: OpenAI writes them as a string of JSON, templates want the object.
OrderedJson calls_of(const OrderedJson& calls) {
  if (!calls.is_array()) wrong("\"tool_calls\" must be a list");
  OrderedJson out = calls;
  for (OrderedJson& call : out) {
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object() ||
        !call["function"].contains("name") || !call["function"]["name"].is_string())
      wrong("a call of \"tool_calls\" is not {\"function\": {\"name\": …, \"arguments\": …}}");
    OrderedJson& function = call["function"];
    if (!function.contains("arguments") || !function["arguments"].is_string()) continue;
    const std::string text = function["arguments"];
    OrderedJson object = parse_ordered_json(text, "\"arguments\" of a call");
    if (!object.is_object()) wrong("\"arguments\" of a call must be an object, or a string that holds one");
    function["arguments"] = std::move(object);
  }
  return out;
}

// weight, train or loss of a message: whether it is learnt.
bool is_learnt(const std::string& field, const OrderedJson& value) {
  if (field == "weight") {
    const double weight = weight_of(value);
    if (weight != 0 && weight != 1)
      wrong("the \"weight\" of a message may be 0 or 1 here; a row, or a source of the recipe, may have any other");
    return weight != 0;
  }
  if (!value.is_boolean()) wrong("\"" + field + "\" of a message must be true or false");
  return value.get<bool>();
}

}  // namespace

Message message_of(const OrderedJson& m) {
  if (!m.is_object() || !m.contains("role") || !m["role"].is_string())
    wrong("a message needs \"role\" and \"content\"");
  refuse_unsupported(m, {"function_call"}, "; write \"tool_calls\"");
  refuse_unsupported(m, {"audio", "images", "image", "video"}, ": models of text are trained here");
  const bool calls = has(m, "tool_calls") && !m["tool_calls"].empty();
  if (!has(m, "content") && !calls) wrong("a message needs \"role\" and \"content\"");
  Message message{m["role"].get<std::string>(), ""};
  OrderedJson more = OrderedJson::object();
  if (has(m, "content")) {
    message.content = content_of(m["content"]);
  } else {
    more["content"] = nullptr;
  }
  for (const auto& [field, value] : m.items()) {
    if (field == "role" || field == "content") continue;
    if (field == "weight" || field == "train" || field == "loss") {
      if (value.is_null()) continue;
      const bool learnt = is_learnt(field, value);
      if (learnt && message.role != "assistant")
        wrong(fmt::format("\"{}\" stands at a message of the {}; only the assistant's are learnt", field,
                          clipped(message.role)));
      message.train = message.train && (learnt || message.role != "assistant");
    } else if (field == "tool_calls") {
      if (calls) more[field] = calls_of(value);
    } else {
      more[field] = value;
    }
  }
  if (!more.empty()) message.more = std::move(more);
  return message;
}

std::vector<Message> messages_of(const OrderedJson& list, const char* field) {
  if (!list.is_array() || list.empty()) wrong(fmt::format("\"{}\" must be a list with at least one message", field));
  std::vector<Message> messages;
  for (const OrderedJson& m : list) messages.push_back(message_of(m));
  return messages;
}

OrderedJson to_json(const Message& message) {
  OrderedJson json{{"role", message.role}, {"content", message.content}};
  for (const auto& [field, value] : message.more.items()) json[field] = value;
  if (!message.train) json["weight"] = 0;
  return json;
}

}  // namespace drover
