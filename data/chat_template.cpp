#include "data/chat_template.h"

#include <algorithm>
#include <set>

#include "data/interpreted_template.h"
#include "data/known_templates.h"
#include "data/native_template.h"
#include "kernels/base/error.h"
#include "kernels/base/json.h"
#include "kernels/base/json_problem.h"

namespace drover {

namespace {

constexpr const char *kTemplate = "chat_template.jinja", *kConfig = "tokenizer_config.json";
constexpr size_t kLargestTemplate = size_t{4} << 20, kLargestConfig = size_t{64} << 20;

std::string spelling_of(const Json& token) {
  if (token.is_string()) return token.get<std::string>();
  if (token.is_object() && token.contains("content") && token["content"].is_string())
    return token["content"].get<std::string>();
  return {};
}

InterpretedTemplate::SpecialTokens special_tokens(const Json& config) {
  InterpretedTemplate::SpecialTokens tokens;
  for (const char* name :
       {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    if (!config.contains(name)) continue;
    const std::string spelling = spelling_of(config[name]);
    if (!spelling.empty()) tokens.emplace_back(name, spelling);
  }
  return tokens;
}

// chat_template: one, or a list of named ones.
std::optional<std::string> template_text(const Json& config) {
  if (!config.contains("chat_template") || config["chat_template"].is_null()) return std::nullopt;
  const Json& t = config["chat_template"];
  if (t.is_string()) return t.get<std::string>();
  for (const Json& entry : t) {
    if (entry.value("name", "") == "default") return entry.at("template").get<std::string>();
  }
  return std::nullopt;
}

Json config_in(const fs::path& directory) {
  const fs::path file = directory / kConfig;
  return fs::exists(file) ? parse_json(read_text(file, kLargestConfig), file.string()) : Json();
}

ChatTemplate template_of(const std::string& text, const fs::path& file, const Json& config) {
  if (!is_utf8(text)) fail(Fault::bad_data, "{}: the chat template is not UTF-8", file.string());
  auto source = std::make_shared<const InterpretedTemplate>(
      text, config.is_object() ? special_tokens(config) : InterpretedTemplate::SpecialTokens{}, file.string());
  ChatTemplate chat = known_template(source->hash()).value_or(ChatTemplate{ChatTemplate::Family::interpreted});
  chat.source = std::move(source);
  return chat;
}

// `tokens`: the directory whose configuration names the special tokens.
std::optional<ChatTemplate> find_template(const fs::path& directory, const fs::path& tokens) {
  const fs::path file = directory / kTemplate, config = directory / kConfig;
  Json j;
  std::optional<std::string> text;
  try {
    j = config_in(directory);
    if (j.is_object()) text = template_text(j);
  } catch (const Json::exception& error) {
    fail(Fault::bad_data, "{} is not a tokenizer's configuration: {}", config.string(), json_problem(error));
  }
  const bool own_file = fs::exists(file);
  if (own_file) text = read_text(file, kLargestTemplate);
  if (!text) return std::nullopt;
  return template_of(*text, own_file ? file : config, directory == tokens ? j : config_in(tokens));
}

}  // namespace

std::optional<ChatTemplate> ChatTemplate::find(const fs::path& directory) {
  return find_template(directory, directory);
}

ChatTemplate ChatTemplate::read(const fs::path& path, const fs::path& tokenizer) {
  std::optional<ChatTemplate> chat;
  if (fs::is_directory(path)) {
    chat = find_template(path, tokenizer);
    if (!chat) {
      fail(Fault::bad_data, "data.template: {} holds no chat template: neither {} nor a chat_template in {}",
           path.string(), kTemplate, kConfig);
    }
  } else {
    chat = template_of(read_text(path, kLargestTemplate), path, config_in(tokenizer));
  }
  chat->named = true;
  return *chat;
}

std::string ChatTemplate::text() const { return source ? source->text() : template_text_of(*this); }

std::string ChatTemplate::name() const {
  switch (family) {
    case Family::llama3: return "llama3";
    case Family::llama3_1: return "llama3.1";
    case Family::interpreted:
      return fmt::format("{}, interpreted ({})", named ? "data.template's" : "the model's own",
                         source->hash().substr(0, 16));
    default: return default_system ? "chatml with the system message \"" + *default_system + "\"" : "chatml";
  }
}

bool ChatTemplate::reads(const std::string& field) const { return source && source->names(field); }

std::vector<Message> as_read(const std::vector<Message>& dialog, const OrderedJson& tools, const ChatTemplate& chat,
                             std::vector<std::string>* ignored) {
  const auto lost = [&](const char* what) {
    fail(Fault::bad_data,
         "there are {}, and the chat template ({}) does not write them; take the model's own template (data.template: "
         "auto) if it does, or leave them out",
         what, chat.name());
  };
  if (!tools.empty() && !chat.reads("tools")) lost("\"tools\"");
  std::vector<Message> messages = dialog;
  std::set<std::string> unread;
  for (Message& m : messages) {
    OrderedJson kept = OrderedJson::object();
    for (const auto& [field, value] : m.more.items()) {
      if (field == "content" || chat.reads(field)) {
        kept[field] = value;
      } else if (field == "tool_calls") {
        lost("\"tool_calls\"");
      } else if (!value.is_null()) {
        unread.insert("messages." + field);
      }
    }
    m.more = kept.empty() ? OrderedJson() : std::move(kept);
  }
  if (ignored != nullptr) ignored->insert(ignored->end(), unread.begin(), unread.end());
  return messages;
}

Rendered render(const std::vector<Message>& dialog, const ChatTemplate& chat, const Tokenizer& tokenizer,
                const RenderOptions& options) {
  if (dialog.empty()) fail(Fault::bad_data, "a dialog without messages cannot be rendered");
  const bool known = chat.family != ChatTemplate::Family::interpreted;
  if (known && is_plain(dialog, options)) return render_native(dialog, chat, tokenizer, options);
  if (chat.source) return chat.source->render(dialog, tokenizer, options);
  as_read(dialog, options.tools, chat);
  for (const Message& m : dialog) {
    if (m.role != "system" && m.role != "user" && m.role != "assistant") {
      fail(Fault::bad_data,
           "the role \"{}\" is not supported by data.template: {}; allowed are system, user and assistant",
           clipped(m.role), chat.name());
    }
  }
  return render_native(as_read(dialog, options.tools, chat), chat, tokenizer, options);
}

std::vector<int32_t> stop_ids(const std::optional<ChatTemplate>& chat, const Tokenizer& tokenizer,
                              const std::vector<int32_t>& eos) {
  std::vector<int32_t> ids = eos;
  const auto add = [&](std::optional<int32_t> id) {
    if (id && std::ranges::find(ids, *id) == ids.end()) ids.push_back(*id);
  };
  if (!chat) return ids;
  if (chat->family == ChatTemplate::Family::chatml) {
    for (const char* name : {"<|im_end|>", "<|endoftext|>"}) add(tokenizer.special(name));
  } else if (chat->family == ChatTemplate::Family::interpreted) {
    add(chat->source->end_of_turn(tokenizer));
  } else {
    for (const char* name : {"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"}) add(tokenizer.special(name));
  }
  return ids;
}

}  // namespace drover
