#include "data/chat_template.h"

#include <algorithm>

#include "data/template_text.h"
#include "kernels/base/error.h"
#include "kernels/base/json.h"

namespace drover {

namespace {

constexpr const char* kKnown = "chatml, llama3 or llama3.1";

[[noreturn]] void unknown(const fs::path& file, const std::string& why) {
  fail(Fault::bad_data,
       "{}: the chat template {}; known are {}: set data.template to the one that this model was trained with",
       file.string(), why, kKnown);
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

// What stands in `text` between `before` and `after`, which together with it are all of the text.
std::optional<std::string> between(const std::string& text, std::string_view before, std::string_view after) {
  if (text.size() < before.size() + after.size() || !text.starts_with(before) || !text.ends_with(after))
    return std::nullopt;
  return text.substr(before.size(), text.size() - before.size() - after.size());
}

// ChatML is recognised by the whole of its template, so that nothing in it can be overlooked.
ChatTemplate recognise_chatml(std::string canonical, const fs::path& file) {
  constexpr std::string_view undefined =
      "{%if not add_generation_prompt is defined%}{%set add_generation_prompt=false%}{%endif%}";
  constexpr std::string_view loop = "{%for message in messages%}";
  constexpr std::string_view turn =
      "{{'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>\n'}}{%endfor%}{%if "
      "add_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%}";
  constexpr std::string_view no_system = "{%if loop.first and messages[0]['role']!='system'%}{{'<|im_start|>system\n",
                             system_end = "<|im_end|>\n'}}{%endif%}";
  if (canonical.starts_with(undefined)) canonical.erase(0, undefined.size());
  const auto rest = between(canonical, loop, turn);
  if (!rest) unknown(file, "is like ChatML but not ChatML to the letter");
  if (rest->empty()) return {ChatTemplate::Family::chatml, std::nullopt};
  const auto system = between(*rest, no_system, system_end);
  if (!system || contains(*system, "'") || contains(*system, "<|im_"))
    unknown(file, "writes a system message in a way that is not known");
  return {ChatTemplate::Family::chatml, system};
}

ChatTemplate recognise(const std::string& text, const fs::path& file) {
  const std::string canonical = canonical_template(text);
  const bool chatml = contains(text, "<|im_start|>"), llama = contains(text, "<|start_header_id|>");
  if (chatml && !llama) return recognise_chatml(canonical, file);
  if (llama && !chatml) {
    const bool turns =
        contains(canonical,
                 "'<|start_header_id|>'+message['role']+'<|end_header_id|>\n\n'+message['content']|trim+'<|eot_id|>'");
    const bool prompt = contains(canonical, "'<|start_header_id|>assistant<|end_header_id|>\n\n'");
    if (!turns || !prompt) unknown(file, "is like Llama 3's but writes messages otherwise");
    if (contains(text, "Cutting Knowledge Date: December 2023") && contains(text, "Today Date: "))
      return {ChatTemplate::Family::llama3_1, std::nullopt};
    if (!contains(text, "Date") && !contains(text, "tool")) return {ChatTemplate::Family::llama3, std::nullopt};
    unknown(file, "is like Llama 3's but has another system block");
  }
  unknown(file, "is of a family that is not known");
}

// Collects control tokens and text. What lies between two control tokens is encoded as one piece, as the tokenizer sees
// it in the rendered string.
class Writer {
 public:
  explicit Writer(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void control(const std::string& spelling, bool trained = false) {
    flush();
    const auto id = tokenizer_.special(spelling);
    if (!id) {
      fail(Fault::bad_data,
           "the tokenizer has no special token {}, which the chat template needs; set data.template to the one that "
           "this model was trained with",
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

void render_chatml(const std::vector<Message>& dialog, const ChatTemplate& chat, const RenderOptions& options,
                   const std::vector<bool>& trained, Writer& out) {
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

void render_llama3(const std::vector<Message>& dialog, bool dated, const RenderOptions& options,
                   const std::vector<bool>& trained, Writer& out) {
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
  const fs::path file = directory / "chat_template.jinja", config = directory / "tokenizer_config.json";
  if (fs::exists(file)) return recognise(read_text(file, size_t{4} << 20), file);
  if (!fs::exists(config)) return std::nullopt;
  try {
    const Json j = parse_json(read_text(config, size_t{64} << 20), config.string());
    if (!j.contains("chat_template") || j["chat_template"].is_null()) return std::nullopt;
    const Json& t = j["chat_template"];  // one, or a list of named ones
    if (t.is_string()) return recognise(t.get<std::string>(), config);
    for (const Json& entry : t) {
      if (entry.value("name", "") == "default") return recognise(entry.at("template").get<std::string>(), config);
    }
    return std::nullopt;
  } catch (const Json::exception& error) {
    fail(Fault::bad_data, "{} is not a tokenizer's configuration: {}", config.string(), error.what());
  }
}

std::string ChatTemplate::name() const {
  switch (family) {
    case Family::llama3: return "llama3";
    case Family::llama3_1: return "llama3.1";
    default: return default_system ? "chatml with the system message \"" + *default_system + "\"" : "chatml";
  }
}

Rendered render(const std::vector<Message>& dialog, const ChatTemplate& chat, const Tokenizer& tokenizer,
                const RenderOptions& options) {
  if (dialog.empty()) fail(Fault::bad_data, "a dialog without messages cannot be rendered");
  size_t last_assistant = dialog.size();
  for (size_t i = 0; i < dialog.size(); ++i) {
    const std::string& role = dialog[i].role;
    if (role != "system" && role != "user" && role != "assistant") {
      fail(Fault::bad_data, "the role \"{}\" is not supported; allowed are system, user and assistant", role);
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

std::vector<int32_t> stop_ids(const std::optional<ChatTemplate>& chat, const Tokenizer& tokenizer,
                              const std::vector<int32_t>& eos) {
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
