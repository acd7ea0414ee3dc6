#include "data/chat_template.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr const char* kKnown = "chatml, llama3 or llama3.1";

[[noreturn]] void unknown(const fs::path& file, const std::string& why) {
  fail(Exit::bad_data, "{}: the chat template {}; known are {}: set data.template to the one that this model was trained with", file.string(), why, kKnown);
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

// A template in one spelling: no white space or line ends, one kind of quote, fields by index.
std::string squeezed(std::string text) {
  const auto replace = [&](std::string_view from, std::string_view to) {
    for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) text.replace(at, from.size(), to);
  };
  replace("\\n", "");
  std::erase_if(text, [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; });
  replace("\"", "'");
  replace("message.role", "message['role']");
  replace("message.content", "message['content']");
  replace("messages[0].role", "messages[0]['role']");
  return text;
}

// What a ChatML template says where a dialog does not begin with a system message.
std::optional<std::string> default_system_of(const std::string& text, const fs::path& file) {
  constexpr std::string_view opening = "<|im_start|>system", closing = "<|im_end|>";
  const size_t at = text.find(opening);
  if (at == std::string::npos) return std::nullopt;
  const size_t begin = at + opening.size(), end = text.find(closing, begin);
  std::string message = text.substr(begin, std::min(end, text.size()) - begin);
  if (message.starts_with("\\n")) {
    message.erase(0, 2);
  } else if (message.starts_with("\n")) {
    message.erase(0, 1);
  } else {
    unknown(file, "writes a system message in a way that is not known");
  }
  for (size_t escape = 0; (escape = message.find("\\n", escape)) != std::string::npos;) message.replace(escape, 2, "\n");
  const bool plain = end != std::string::npos && !contains(message, "{{") && !contains(message, "{%") && !contains(message, "}}") && !contains(message, "\\");
  const bool once = text.find(opening, begin) == std::string::npos;
  if (!plain || !once || !contains(squeezed(text), "ifloop.firstandmessages[0]['role']!='system'")) {
    unknown(file, "writes a system message in a way that is not known");
  }
  return message;
}

ChatTemplate recognise(const std::string& text, const fs::path& file) {
  const std::string squeeze = squeezed(text);
  const bool chatml = contains(text, "<|im_start|>"), llama = contains(text, "<|start_header_id|>");
  if (chatml && !llama) {
    if (!contains(squeeze, "'<|im_start|>'+message['role']+''+message['content']+'<|im_end|>'")) unknown(file, "is like ChatML but writes messages otherwise");
    return {ChatTemplate::Family::chatml, default_system_of(text, file)};
  }
  if (llama && !chatml) {
    const bool turns = contains(squeeze, "'<|start_header_id|>'+message['role']+'<|end_header_id|>'") && contains(squeeze, "message['content']|trim") &&
                       contains(squeeze, "'<|eot_id|>'");
    if (!turns) unknown(file, "is like Llama 3's but writes messages otherwise");
    if (contains(text, "Cutting Knowledge Date: December 2023") && contains(text, "Today Date: ")) return {ChatTemplate::Family::llama3_1, std::nullopt};
    if (!contains(text, "Date") && !contains(text, "tool")) return {ChatTemplate::Family::llama3, std::nullopt};
    unknown(file, "is like Llama 3's but has another system block");
  }
  unknown(file, "is of a family that is not known");
}

// Collects control tokens and text. What lies between two control tokens is encoded as one piece, as the tokenizer sees it in the rendered string.
class Writer {
 public:
  explicit Writer(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void control(const std::string& spelling, bool trained = false) {
    flush();
    const auto id = tokenizer_.special(spelling);
    if (!id) {
      fail(Exit::bad_data, "the tokenizer has no special token {}, which the chat template needs; set data.template to the one that this model was trained with",
           spelling);
    }
    out_.ids.push_back(*id);
    out_.trained.push_back(trained);
  }
  // From the first trained text on, all of a piece is trained, and so is a token that reaches into it.
  void text(std::string_view words, bool trained = false) {
    if (trained && !trained_from_) trained_from_ = piece_.size();
    piece_ += words;
  }
  Rendered finish() {
    flush();
    return std::move(out_);
  }

 private:
  void flush() {
    std::vector<size_t> begins;
    const std::vector<int32_t> ids = tokenizer_.encode(piece_, &begins);
    for (size_t i = 0; i < ids.size(); ++i) {
      const size_t end = i + 1 < ids.size() ? begins[i + 1] : piece_.size();
      out_.ids.push_back(ids[i]);
      out_.trained.push_back(trained_from_ && end > *trained_from_);
    }
    piece_.clear();
    trained_from_.reset();
  }
  const Tokenizer& tokenizer_;
  Rendered out_;
  std::string piece_;
  std::optional<size_t> trained_from_;
};

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
      out.text(strip(dialog.front().content));
      first = 1;
    }
    out.control("<|eot_id|>");
  }
  for (size_t i = first; i < dialog.size(); ++i) {
    header(dialog[i].role);
    out.text(strip(dialog[i].content), trained[i]);
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
    const nlohmann::json& t = j["chat_template"];  // one, or a list of named ones
    if (t.is_string()) return recognise(t.get<std::string>(), config);
    for (const nlohmann::json& entry : t) {
      if (entry.value("name", "") == "default") return recognise(entry.at("template").get<std::string>(), config);
    }
    return std::nullopt;
  } catch (const nlohmann::json::exception& error) {
    fail(Exit::bad_data, "{} is not a tokenizer's configuration: {}", config.string(), error.what());
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
  if (chat && chat->family == ChatTemplate::Family::chatml) names = {"<|im_end|>", "<|endoftext|>"};
  if (chat && chat->family != ChatTemplate::Family::chatml) names = {"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"};
  for (const std::string& name : names) {
    const auto id = tokenizer.special(name);
    if (id && std::find(ids.begin(), ids.end(), *id) == ids.end()) ids.push_back(*id);
  }
  return ids;
}

}  // namespace drover
