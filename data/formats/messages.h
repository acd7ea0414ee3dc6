// Messages as OpenAI's chat format for fine-tuning has them: role, content, tool_calls, weight.
#pragma once
#include <vector>

#include "data/message.h"

namespace drover {

Message message_of(const OrderedJson& message);
// `field`: where the list stands, for messages.
std::vector<Message> messages_of(const OrderedJson& list, const char* field);

// The message as a row has it.
OrderedJson to_json(const Message& message);

}  // namespace drover
