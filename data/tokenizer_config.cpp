// Reads tokenizer_config.json, as far as it bears on ids.
#include "data/tokenizer.h"
#include "kernels/base/json.h"
#include "kernels/base/json_problem.h"

namespace drover {

namespace {

std::string content_of(const Json& token) {
  return token.is_object() ? token.at("content").get<std::string>() : token.get<std::string>();
}

std::optional<bool> flag(const Json& config, const char* key) {
  if (!config.contains(key) || config[key].is_null()) return std::nullopt;
  return config[key].get<bool>();
}

}  // namespace

Tokenizer::Config Tokenizer::read_config(const fs::path& file, const std::string& text) {
  try {
    const Json config = parse_json(text, file.string());
    if (!config.is_object())
      fail(Fault::bad_data, "{} is not a tokenizer's configuration: it is no JSON object", file.string());
    Config c;
    for (const char* key :
         {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
      if (config.contains(key) && !config[key].is_null()) c.named[key] = content_of(config[key]);
    }
    for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
      if (!config.contains(key) || config[key].is_null()) continue;
      for (const Json& token : config[key]) c.specials.push_back(content_of(token));  // a list, or by name
    }
    const Json added = config.value("added_tokens_decoder", Json::object());
    for (const Json& a : added) {
      c.added.push_back({.spelling = content_of(a),
                         .special = a.value("special", false),
                         .normalized = a.value("normalized", !a.value("special", false)),
                         .lstrip = a.value("lstrip", false),
                         .rstrip = a.value("rstrip", false),
                         .single_word = a.value("single_word", false)});
    }
    if (config.contains("tokenizer_class") && config["tokenizer_class"].is_string())
      c.tokenizer_class = config["tokenizer_class"].get<std::string>();
    c.adds_bos = flag(config, "add_bos_token");
    c.adds_eos = flag(config, "add_eos_token");
    return c;
  } catch (const Json::exception& error) {
    fail(Fault::bad_data, "{} is not a tokenizer's configuration: {}", file.string(), json_problem(error));
  }
}

}  // namespace drover
