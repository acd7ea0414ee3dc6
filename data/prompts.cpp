#include "data/prompts.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/base/error.h"
#include "kernels/base/file.h"

namespace drover {

std::vector<Prompt> read_prompts(const std::string& file) {
  std::vector<Prompt> prompts;
  std::istringstream in(read_text(file, size_t{1} << 30));
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto j = nlohmann::json::parse(line, nullptr, false);
    Prompt p;
    if (j.is_object() && j.contains("prompt") && j["prompt"].is_string()) {
      p.dialog = {{"user", j["prompt"].get<std::string>()}};
    } else if (j.is_object() && j.contains("messages") && j["messages"].is_array() && !j["messages"].empty()) {
      for (const auto& m : j["messages"]) {
        if (!m.is_object() || !m.contains("role") || !m["role"].is_string() || !m.contains("content") || !m["content"].is_string()) {
          fail(Exit::bad_data, "{}:{}: a message needs \"role\" and \"content\"", file, number);
        }
        p.dialog.push_back({m["role"].get<std::string>(), m["content"].get<std::string>()});
      }
      if (p.dialog.back().role == "assistant") p.dialog.pop_back();
      if (p.dialog.empty()) fail(Exit::bad_data, "{}:{}: the row has no message to answer", file, number);
    } else {
      fail(Exit::bad_data, "{}:{}: expected {{\"prompt\": …}} or {{\"messages\": […]}}", file, number);
    }
    prompts.push_back(std::move(p));
  }
  if (prompts.empty()) fail(Exit::bad_data, "{} holds no prompt", file);
  return prompts;
}

std::string answered_row(const Prompt& prompt, const std::string& answer) {
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  for (const Message& m : prompt.dialog) messages.push_back({{"role", m.role}, {"content", m.content}});
  messages.push_back({{"role", "assistant"}, {"content", answer}});
  return nlohmann::ordered_json{{"messages", messages}}.dump();
}

}  // namespace drover
