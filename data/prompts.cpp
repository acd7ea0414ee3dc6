#include "data/prompts.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "data/formats/messages.h"
#include "data/rows.h"
#include "data/tokenizer.h"
#include "kernels/base/error.h"

namespace drover {

std::vector<Prompt> read_prompts(const fs::path& file, PromptRows rows) {
  std::vector<Prompt> prompts;
  const auto where = [&](int64_t line) { return fmt::format("{}:{}", file.string(), line); };
  const auto use = [&](const Row& row) {
    Prompt p{row.messages, where(row.line), {}, row.tools, row.adapter};
    if (p.dialog.back().role == "assistant") p.dialog.pop_back();
    if (p.dialog.empty()) throw std::invalid_argument("it has no message to answer");
    prompts.push_back(std::move(p));
  };
  const auto without = [&](int64_t line, const std::string& reason) {
    if (rows != PromptRows::good) prompts.push_back({{}, where(line), reason});
  };
  read_rows(file, RowFormat::prompt, rows == PromptRows::all ? BadRows::skip : BadRows::error, use, without);
  if (prompts.empty()) fail(Fault::bad_data, "{} holds no prompt", file.string());
  return prompts;
}

std::vector<int32_t> prompt_ids(const Prompt& prompt, const Tokenizer& tokenizer,
                                const std::optional<ChatTemplate>& chat, const std::string& date) {
  if (chat) {
    try {
      const RenderOptions options{.date = date, .add_generation_prompt = true, .tools = prompt.tools};
      return render(as_read(prompt.dialog, prompt.tools, *chat), *chat, tokenizer, options).ids;
    } catch (const Error& error) {
      throw Error(error.fault(), fmt::format("{}: {}", prompt.where, error.what()));
    }
  }
  std::string text;
  for (const Message& m : prompt.dialog) text += (&m == &prompt.dialog.front() ? "" : "\n\n") + m.content;
  std::vector<int32_t> ids = tokenizer.encode_document(text);
  if (ids.empty()) fail(Fault::bad_data, "{}: the prompt has no tokens; give it some text", prompt.where);
  return ids;
}

std::vector<int32_t> rendered_ids(const Prompt& prompt, const Tokenizer& tokenizer) {
  if (prompt.dialog.size() != 1) {
    fail(Fault::bad_data, "{}: a prompt that is rendered already is one text ({{\"prompt\": …}}), not {} messages",
         prompt.where, prompt.dialog.size());
  }
  std::vector<int32_t> ids = tokenizer.encode_special(prompt.dialog.front().content);
  if (ids.empty()) fail(Fault::bad_data, "{}: the prompt has no tokens; give it some text", prompt.where);
  if (tokenizer.adds_bos() && tokenizer.bos() && ids.front() != *tokenizer.bos())
    ids.insert(ids.begin(), *tokenizer.bos());
  return ids;
}

bool spells_control_tokens(const Prompt& prompt, const Tokenizer& tokenizer) {
  return std::ranges::any_of(prompt.dialog, [&](const Message& m) {
    return tokenizer.encode(m.content) != tokenizer.encode_special(m.content);
  });
}

std::string answered_row(const Prompt& prompt, const std::string& answer) {
  OrderedJson row{{"messages", OrderedJson::array()}};
  for (const Message& m : prompt.dialog) row["messages"].push_back(to_json(m));
  row["messages"].push_back({{"role", "assistant"}, {"content", answer}});
  if (!prompt.tools.is_null()) row["tools"] = prompt.tools;
  return row.dump();
}

std::string failed_row(size_t row, const std::string& message) {
  const nlohmann::ordered_json error{{"row", row}, {"message", message}};
  return nlohmann::ordered_json{{"error", error}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace drover
