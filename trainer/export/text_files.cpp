#include "trainer/export/text_files.h"

#include "kernels/base/error.h"
#include "kernels/base/json.h"
#include "kernels/base/log.h"
#include "trainer/setup/inputs.h"

namespace drover {

namespace {

constexpr const char *kTemplate = "chat_template.jinja", *kGeneration = "generation_config.json";
const std::set<std::string> kNames = {"tokenizer.json",          "tokenizer.model", "tokenizer_config.json",
                                      "special_tokens_map.json", kTemplate,         kGeneration};
constexpr size_t kLargestSettings = size_t{1} << 20;

bool has_tokenizer(const fs::path& directory) {
  std::error_code ignored;
  return fs::exists(directory / "tokenizer.json", ignored) || fs::exists(directory / "tokenizer.model", ignored);
}

void copy_tokenizer(const fs::path& from, const fs::path& to) {
  for (const std::string& name : kNames) {
    if (name != kTemplate && name != kGeneration && fs::exists(from / name)) fs::copy_file(from / name, to / name);
  }
}

// The base's settings, with every id that ends an answer.
std::string generation_settings(const fs::path& base, const std::vector<int32_t>& stops) {
  const fs::path file = base / kGeneration;
  OrderedJson settings = OrderedJson::object();
  if (fs::exists(file)) settings = parse_ordered_json(read_text(file, kLargestSettings), file.string());
  settings["eos_token_id"] = stops;
  return settings.dump(2) + "\n";
}

}  // namespace

ModelTexts model_texts(const Recipe& recipe, const ModelConfig& base) {
  ModelTexts texts{.tokenizer = tokenizer_directory(recipe)};
  const std::optional<ChatTemplate> chat = chat_template(recipe);
  if (chat) texts.chat_template = chat->text();
  texts.stops = stop_ids(chat, Tokenizer::open(texts.tokenizer), base.eos);
  return texts;
}

void copy_text_files(const fs::path& from, const fs::path& to) {
  for (const std::string& name : kNames) {
    if (fs::exists(from / name)) fs::copy_file(from / name, to / name);
  }
}

MoreFiles text_files(const Recipe& recipe, const ModelConfig& base) {
  return {kNames, [&recipe, &base](const fs::path& directory) {
            const ModelTexts texts = model_texts(recipe, base);
            copy_tokenizer(texts.tokenizer, directory);
            if (texts.chat_template) write_text(directory / kTemplate, *texts.chat_template);
            write_text(directory / kGeneration, generation_settings(recipe.model.path, texts.stops));
          }};
}

bool take_tokenizer(Recipe& recipe, const fs::path& adapter) {
  if (recipe.model.tokenizer || !has_tokenizer(adapter)) return false;
  TemplateChoice word{};
  const bool automatic = read_word(recipe.data.chat_template, word) && word == TemplateChoice::automatic;
  if (automatic && !ChatTemplate::find(adapter) && ChatTemplate::find(recipe.model.path))
    recipe.data.chat_template = recipe.model.path;
  recipe.model.tokenizer = adapter.string();
  log::info("tokenizer, chat template and stop tokens are those of {}", adapter.string());
  return true;
}

}  // namespace drover
