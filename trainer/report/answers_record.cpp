#include "trainer/report/answers_record.h"

#include "kernels/base/json.h"

namespace drover {

namespace {

// A message's content is a text, or a list of parts of which some are texts.
std::string text_of(const Json& message) {
  if (!message.is_object() || !message.contains("content")) return "";
  const Json& content = message["content"];
  if (content.is_string()) return content.get<std::string>();
  std::string text;
  if (!content.is_array()) return text;
  for (const Json& part : content) {
    if (part.is_object() && part.value("text", Json()).is_string()) text += part["text"].get<std::string>();
  }
  return text;
}

AnsweredPrompt row_of(std::string_view line) {
  if (json_depth(line) > kJsonDepth) return {};
  const Json row = Json::parse(line, nullptr, false);
  const Json messages = row.is_object() ? row.value("messages", Json()) : Json();
  if (!messages.is_array() || messages.size() < 2) return {};
  return {text_of(messages[messages.size() - 2]), text_of(messages.back())};
}

}  // namespace

AnswersOfStep parse_answers(std::string_view text, int64_t step) {
  AnswersOfStep answers{.step = step};
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    if (end > 0) answers.rows.push_back(row_of(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return answers;
}

std::vector<BeforeAfter> before_and_after(const AnswersOfStep& before, const AnswersOfStep& after) {
  std::vector<BeforeAfter> pairs;
  for (size_t i = 0; i < std::min(before.rows.size(), after.rows.size()); ++i) {
    const AnsweredPrompt &first = before.rows[i], &last = after.rows[i];
    if (!first.prompt.empty() && first.prompt == last.prompt)
      pairs.push_back({first.prompt, first.answer, last.answer});
  }
  return pairs;
}

}  // namespace drover
