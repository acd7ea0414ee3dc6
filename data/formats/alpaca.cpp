// Stanford Alpaca's instructions. As a dialog the way LLaMA-Factory builds it: the turns of `history`, then instruction
// and input with a line end between them as the user's, output as the answer. For a model without a chat template as
// Alpaca's own prompt (stanford_alpaca/train.py, PROMPT_DICT), which knows neither `system` nor `history`.
#include <array>

#include "data/formats/fields.h"
#include "data/formats/formats.h"

namespace drover {

namespace {

constexpr std::array<const char*, 6> kFields{"instruction", "output", "input", "system", "history", "tools"};

std::string plain_prompt(const std::string& instruction, const std::string& input) {
  std::string text = "Below is an instruction that describes a task";
  if (!input.empty()) text += ", paired with an input that provides further context";
  text += ". Write a response that appropriately completes the request.\n\n### Instruction:\n" + instruction;
  if (!input.empty()) text += "\n\n### Input:\n" + input;
  return text + "\n\n### Response:";
}

void read_alpaca(const OrderedJson& j, Row& row) {
  if (has(j, "history")) {
    if (!j["history"].is_array()) wrong("\"history\" must be a list of [question, answer]");
    for (const OrderedJson& pair : j["history"]) {
      if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string())
        wrong("\"history\" must be a list of [question, answer], two strings each");
      row.messages.push_back({"user", pair[0].get<std::string>()});
      row.messages.push_back({"assistant", pair[1].get<std::string>()});
    }
  }
  const bool first = row.messages.empty();
  const std::string instruction = text_of(j, "instruction"), input = text_of(j, "input");
  if (instruction.empty() && input.empty()) wrong("\"instruction\" and \"input\" are both empty");
  if (!j["output"].is_string()) wrong("\"output\" must be a string");
  const std::string output = j["output"].get<std::string>();
  row.messages.push_back({"user", instruction + (instruction.empty() || input.empty() ? "" : "\n") + input});
  row.messages.push_back({"assistant", output});
  const size_t turns = row.messages.size();
  read_tools_and_system(j, row);
  if (!first || row.messages.size() != turns || !row.tools.is_null()) return;
  row.prompt = plain_prompt(instruction, input);
  row.text = output;
}

}  // namespace

const RowFormatSpec kAlpacaFormat = {RowFormat::alpaca, kFields, std::span(kFields).first(2), read_alpaca};

}  // namespace drover
