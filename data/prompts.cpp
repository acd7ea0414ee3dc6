#include "data/prompts.h"

#include <nlohmann/json.hpp>

#include "data/rows.h"
#include "kernels/base/error.h"

namespace drover {

std::vector<Prompt> read_prompts(const fs::path& file) {
  std::vector<Prompt> prompts;
  read_rows(file, RowFormat::prompt, BadRows::error, [&](const Row& row) {
    Prompt p{row.messages, fmt::format("{}:{}", file.string(), row.line)};
    if (p.dialog.back().role == "assistant") p.dialog.pop_back();
    if (p.dialog.empty()) throw std::invalid_argument("it has no message to answer");
    prompts.push_back(std::move(p));
  });
  if (prompts.empty()) fail(Exit::bad_data, "{} holds no prompt", file.string());
  return prompts;
}

std::string answered_row(const Prompt& prompt, const std::string& answer) {
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  for (const Message& m : prompt.dialog) messages.push_back({{"role", m.role}, {"content", m.content}});
  messages.push_back({{"role", "assistant"}, {"content", answer}});
  return nlohmann::ordered_json{{"messages", messages}}.dump();
}

}  // namespace drover
