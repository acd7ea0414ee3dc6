#include "data/chat_template.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr const char* kKnown = "chatml, llama3 or llama3.1";

ChatTemplate recognise(const std::string& text, const fs::path& file) {
  if (text.find("<|im_start|>") != std::string::npos) {
    ChatTemplate chat{ChatTemplate::Family::chatml, std::nullopt};
    const std::string opening = "<|im_start|>system";
    const size_t at = text.find(opening);
    if (at != std::string::npos) {
      size_t begin = at + opening.size();
      if (text.compare(begin, 2, "\\n") == 0) {
        begin += 2;
      } else if (text.compare(begin, 1, "\n") == 0) {
        begin += 1;
      }
      const size_t end = text.find("<|im_end|>", begin);
      if (end == std::string::npos) fail(Exit::bad_data, "{}: the ChatML template's default system message has no end; set data.template to {}", file.string(), kKnown);
      chat.default_system = text.substr(begin, end - begin);
    }
    return chat;
  }
  if (text.find("<|start_header_id|>") != std::string::npos) {
    const bool dated = text.find("Cutting Knowledge Date") != std::string::npos;
    return {dated ? ChatTemplate::Family::llama3_1 : ChatTemplate::Family::llama3, std::nullopt};
  }
  fail(Exit::bad_data, "{}: the chat template is of a family that is not known here; set data.template to {}", file.string(), kKnown);
}

// Collects control tokens and text; text between two control tokens is encoded as one piece, as a tokenizer sees the rendered string.
class Writer {
 public:
  explicit Writer(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void control(const std::string& spelling, bool trained = false) {
    flush();
    const auto id = tokenizer_.special(spelling);
    if (!id) fail(Exit::bad_data, "the tokenizer has no special token {}, which the chat template needs; set data.template to the model's own format", spelling);
    out_.ids.push_back(*id);
    out_.trained.push_back(trained);
  }
  void text(const std::string& words, bool trained = false) {
    if (trained && !words.empty()) marks_.push_back({pending_.size(), pending_.size() + words.size()});
    pending_ += words;
  }
  Rendered finish() {
    flush();
    return std::move(out_);
  }

 private:
  struct Mark {
    size_t begin, end;
  };
  void flush() {
    size_t at = 0;
    for (int32_t id : tokenizer_.encode(pending_)) {
      const size_t end = at + tokenizer_.raw_bytes(id).size();
      const bool trained = std::any_of(marks_.begin(), marks_.end(), [&](const Mark& m) { return end > m.begin && at < m.end; });
      out_.ids.push_back(id);
      out_.trained.push_back(trained);
      at = end;
    }
    pending_.clear();
    marks_.clear();
  }
  const Tokenizer& tokenizer_;
  Rendered out_;
  std::string pending_;
  std::vector<Mark> marks_;
};

std::string trimmed(const std::string& text) {
  constexpr const char* kSpace = " \t\n\v\f\r";
  const size_t begin = text.find_first_not_of(kSpace);
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

void render_chatml(const std::vector<Message>& dialog, const ChatTemplate& chat, const RenderOptions& options, const std::vector<bool>& trained, Writer& out) {
  if (chat.default_system && dialog.front().role != "system") {
    out.control("<|im_start|>");
    out.text("system\n" + *chat.default_system);
    out.control("<|im_end|>");
    out.text("\n");
  }
  for (size_t i = 0; i < dialog.size(); ++i) {
    out.control("<|im_start|>");
    out.text(dialog[i].role + "\n");
    out.text(dialog[i].content, trained[i]);
    out.control("<|im_end|>", trained[i]);
    out.text("\n");
  }
  if (!options.add_generation_prompt) return;
  out.control("<|im_start|>");
  out.text("assistant\n");
}

void render_llama3(const std::vector<Message>& dialog, bool dated, const RenderOptions& options, const std::vector<bool>& trained, Writer& out) {
  const auto header = [&](const std::string& role) {
    out.control("<|start_header_id|>");
    out.text(role);
    out.control("<|end_header_id|>");
    out.text("\n\n");
  };
  out.control("<|begin_of_text|>");
  size_t first = 0;
  if (dated) {
    header("system");
    out.text("Cutting Knowledge Date: December 2023\nToday Date: " + options.date + "\n\n");
    if (dialog.front().role == "system") {
      out.text(trimmed(dialog.front().content));
      first = 1;
    }
    out.control("<|eot_id|>");
  }
  for (size_t i = first; i < dialog.size(); ++i) {
    header(dialog[i].role);
    out.text(trimmed(dialog[i].content), trained[i]);
    out.control("<|eot_id|>", trained[i]);
  }
  if (options.add_generation_prompt) header("assistant");
}

}  // namespace

std::optional<ChatTemplate> ChatTemplate::find(const fs::path& directory) {
  const fs::path beside = directory / "chat_template.jinja", config = directory / "tokenizer_config.json";
  if (fs::exists(beside)) return recognise(read_text(beside, size_t{4} << 20), beside);
  if (!fs::exists(config)) return std::nullopt;
  try {
    const nlohmann::json j = nlohmann::json::parse(read_text(config, size_t{64} << 20));
    if (!j.contains("chat_template") || j["chat_template"].is_null()) return std::nullopt;
    const nlohmann::json& t = j["chat_template"];
    if (t.is_string()) return recognise(t.get<std::string>(), config);
    for (const nlohmann::json& entry : t) {
      if (entry.value("name", "") == "default") return recognise(entry.at("template").get<std::string>(), config);
    }
    return std::nullopt;
  } catch (const nlohmann::json::exception& error) {
    fail(Exit::bad_data, "{} is not valid: {}", config.string(), error.what());
  }
}

ChatTemplate ChatTemplate::named(const std::string& name) {
  if (name == "chatml") return {Family::chatml, std::nullopt};
  if (name == "llama3") return {Family::llama3, std::nullopt};
  if (name == "llama3.1") return {Family::llama3_1, std::nullopt};
  fail(Exit::bad_recipe, "data.template \"{}\" is not known; allowed are auto, {}", name, kKnown);
}

std::string ChatTemplate::name() const {
  switch (family) {
    case Family::llama3: return "llama3";
    case Family::llama3_1: return "llama3.1";
    default: return default_system ? "chatml with the system message \"" + *default_system + "\"" : "chatml";
  }
}

Rendered render(const std::vector<Message>& dialog, const ChatTemplate& chat, const Tokenizer& tokenizer, const RenderOptions& options) {
  if (dialog.empty()) fail(Exit::bad_data, "a dialog without messages cannot be rendered");
  size_t last_assistant = dialog.size();
  for (size_t i = 0; i < dialog.size(); ++i) {
    const std::string& role = dialog[i].role;
    if (role != "system" && role != "user" && role != "assistant") {
      fail(Exit::bad_data, "the role \"{}\" is not supported; allowed are system, user and assistant", role);
    }
    if (role == "assistant") last_assistant = i;
  }
  std::vector<bool> trained(dialog.size());
  for (size_t i = 0; i < dialog.size(); ++i) {
    trained[i] = dialog[i].role == "assistant" && (options.train_on != TrainOn::last || i == last_assistant);
  }
  Writer out(tokenizer);
  if (chat.family == ChatTemplate::Family::chatml) {
    render_chatml(dialog, chat, options, trained, out);
  } else {
    render_llama3(dialog, chat.family == ChatTemplate::Family::llama3_1, options, trained, out);
  }
  Rendered rendered = out.finish();
  if (options.train_on == TrainOn::all) rendered.trained.assign(rendered.trained.size(), 1);
  return rendered;
}

std::vector<int32_t> stop_ids(const std::optional<ChatTemplate>& chat, const Tokenizer& tokenizer, const std::vector<int32_t>& eos) {
  std::vector<int32_t> ids = eos;
  std::vector<std::string> names;
  if (chat && chat->family == ChatTemplate::Family::chatml) names = {"<|im_end|>"};
  if (chat && chat->family != ChatTemplate::Family::chatml) names = {"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"};
  for (const std::string& name : names) {
    const auto id = tokenizer.special(name);
    if (id && std::find(ids.begin(), ids.end(), *id) == ids.end()) ids.push_back(*id);
  }
  return ids;
}

}  // namespace drover
