// A prompt and its completion, which alone is trained. Source: trl's prompt-completion format: two strings joined as
// they are, or two lists of messages joined to one dialog.
#include <algorithm>
#include <array>

#include "data/formats/fields.h"
#include "data/formats/formats.h"
#include "data/formats/messages.h"

namespace drover {

namespace {

constexpr std::array<const char*, 4> kOfMessages{"prompt", "completion", "tools", "system"};

void read_prompt_completion(const OrderedJson& j, Row& row) {
  // Rows of KTO say so whether a completion is wanted; the unwanted would be learnt too.
  if (has(j, "label") && j["label"].is_boolean())
    wrong("\"label\" is not supported: no training by preferences; keep the rows that are wanted, without it");
  const OrderedJson &prompt = j["prompt"], &completion = j["completion"];
  if (prompt.is_string() && completion.is_string()) {
    for (const char* field : {"tools", "system"}) {
      if (has(j, field) && !j[field].empty())
        wrong(std::string("\"") + field + "\" needs \"prompt\" and \"completion\" as lists of messages");
    }
    row.prompt = prompt.get<std::string>();
    row.text = completion.get<std::string>();
    return;
  }
  if (!prompt.is_array() || !completion.is_array())
    wrong("\"prompt\" and \"completion\" must be two strings, or two lists of messages");
  row.messages = messages_of(prompt, "prompt");
  const std::vector<Message> answer = messages_of(completion, "completion");
  if (std::ranges::none_of(answer, [](const Message& m) { return m.role == "assistant"; }))
    wrong("\"completion\" holds no message of the assistant, so that nothing would be trained");
  read_tools_and_system(j, row);
  row.given = row.messages.size();
  row.messages.insert(row.messages.end(), answer.begin(), answer.end());
}

}  // namespace

const RowFormatSpec kPromptCompletionFormat = {RowFormat::prompt_completion, kOfMessages,
                                               std::span(kOfMessages).first(2), read_prompt_completion};

}  // namespace drover
