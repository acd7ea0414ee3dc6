// Rows of messages, and prompts of one. Source: OpenAI's chat format for fine-tuning.
#include <array>

#include "data/formats/fields.h"
#include "data/formats/formats.h"
#include "data/formats/messages.h"

namespace drover {

namespace {

constexpr std::array<const char*, 3> kFields{"messages", "tools", "system"};

void read_messages(const OrderedJson& j, Row& row) {
  row.messages = messages_of(j["messages"], "messages");
  read_tools_and_system(j, row);
}

constexpr std::array<const char*, 5> kPromptFields{"prompt", "messages", "tools", "system", "adapter"};

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
    row.messages = messages_of(j["messages"], "messages");
  } else {
    wrong("it has neither \"prompt\" nor \"messages\"");
  }
  read_tools_and_system(j, row);
}

}  // namespace

const RowFormatSpec kMessagesFormat = {RowFormat::messages, kFields, std::span(kFields).first(1), read_messages};
const RowFormatSpec kPromptFormat = {RowFormat::prompt, kPromptFields, {}, read_prompt};

}  // namespace drover
