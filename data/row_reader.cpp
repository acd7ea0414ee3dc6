#include "data/row_reader.h"

#include <algorithm>
#include <array>

namespace drover {

namespace {

[[noreturn]] void wrong(const std::string& what) { throw std::invalid_argument(what); }

bool has(const OrderedJson& object, const char* field) { return object.contains(field) && !object[field].is_null(); }

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

double weight_of(const OrderedJson& value) {
  if (!value.is_number() || value.get<double>() < 0 || value.get<double>() > 10)
    wrong("\"weight\" must be a number from 0 to 10");
  return value.get<double>();
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

// Fields that would change what a model is given, and that cannot be honoured. Empty ones say nothing.
void refuse_unsupported(const OrderedJson& object, std::initializer_list<const char*> fields, const char* instead) {
  for (const char* field : fields) {
    if (has(object, field) && !object[field].empty())
      wrong(fmt::format("the field \"{}\" is not supported{}", field, instead));
  }
}

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

std::vector<Message> messages_of(const OrderedJson& list) {
  if (!list.is_array() || list.empty()) wrong("\"messages\" must be a list with at least one message");
  std::vector<Message> messages;
  for (const OrderedJson& m : list) messages.push_back(message_of(m));
  return messages;
}

constexpr std::array<const char*, 6> kRead{"messages", "tools", "text", "prompt", "adapter", "weight"};

void read_common(const OrderedJson& j, Row& row) {
  refuse_unsupported(j, {"functions", "function_call"}, "; write \"tools\" and \"tool_calls\"");
  refuse_unsupported(j, {"documents", "chat_template_kwargs", "images", "videos", "audios"}, "");
  if (has(j, "weight")) row.weight = static_cast<float>(weight_of(j["weight"]));
  if (has(j, "tools")) {
    if (!j["tools"].is_array()) wrong("\"tools\" must be a list of functions");
    if (!j["tools"].empty()) row.tools = j["tools"];
  }
  for (const auto& [field, value] : j.items()) {
    if (std::ranges::find(kRead, field) == kRead.end() && !value.is_null()) row.ignored.push_back(field);
  }
}

void read_prompt(const OrderedJson& j, Row& row) {
  if (j.contains("adapter")) {
    if (!j["adapter"].is_string() || j["adapter"].get<std::string>().empty())
      wrong("\"adapter\" must be the name of one");
    row.adapter = j["adapter"].get<std::string>();
  }
  if (j.contains("prompt")) {
    if (!j["prompt"].is_string()) wrong("\"prompt\" must be a string");
    row.messages = {{"user", j["prompt"].get<std::string>()}};
  } else if (j.contains("messages")) {
    row.messages = messages_of(j["messages"]);
  } else {
    wrong("it has neither \"prompt\" nor \"messages\"");
  }
}

}  // namespace

std::optional<Row> read_row(std::string_view line, RowFormat format) {
  if (json_depth(line) > kJsonDepth) wrong(fmt::format("it is nested more than {} deep", kJsonDepth));
  const Json plain = Json::parse(line);
  if (!plain.is_object()) wrong("a row is an object with \"messages\" or \"text\"");
  if (plain.size() == 1 && plain.contains("error") && plain["error"].is_object()) return {};
  // A template sees fields in the order in which they were written. Text rows may be of any size.
  const bool messages = plain.contains("messages"), text = plain.contains("text");
  Row row;
  if (format == RowFormat::prompt) {
    const OrderedJson j = parse_ordered_json(line, "the row");
    read_common(j, row);
    read_prompt(j, row);
    return row;
  }
  if (format == RowFormat::messages && !messages) wrong("it has no \"messages\", which data.format: messages asks for");
  if (format == RowFormat::text && !text) wrong("it has no \"text\", which data.format: text asks for");
  if (!messages && !text) wrong("it has neither \"messages\" nor \"text\"");
  const OrderedJson j = parse_ordered_json(line, "the row");
  read_common(j, row);
  if (messages && format != RowFormat::text) {
    row.messages = messages_of(j["messages"]);
  } else {
    if (!j["text"].is_string()) wrong("\"text\" must be a string");
    row.text = j["text"].get<std::string>();
  }
  return row;
}

OrderedJson to_json(const Message& message) {
  OrderedJson json{{"role", message.role}, {"content", message.content}};
  for (const auto& [field, value] : message.more.items()) json[field] = value;
  if (!message.train) json["weight"] = 0;
  return json;
}

}  // namespace drover
