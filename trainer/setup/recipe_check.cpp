#include "trainer/setup/recipe_check.h"

#include <algorithm>
#include <functional>

#include "configs/foreign.h"
#include "data/data_files.h"
#include "kernels/base/error.h"
#include "trainer/setup/adapter_setup.h"
#include "trainer/setup/engine_settings.h"

namespace drover {

namespace {

class Problems {
 public:
  explicit Problems(const ReadRecipe& read) : read_(read) {}

  void add(const std::string& key, const std::string& message) {
    const auto origin = read_.origins.find(key);
    texts_.push_back(fmt::format("{}{}", origin == read_.origins.end() ? "" : origin->second + ": ", message));
  }
  // What a check throws is a problem of this key.
  void of(const std::string& key, const std::function<void()>& check) {
    try {
      check();
    } catch (const Error& error) {
      add(key, error.what());
    }
  }
  void take(const Problems& others) {
    texts_.insert(texts_.end(), others.texts_.begin(), others.texts_.end());
    missing_ += others.missing_;
  }
  bool empty() const { return texts_.empty(); }
  void path(const std::string& key, const fs::path& path) {
    if (fs::exists(path)) return;
    add(key, fmt::format("{}: {} does not exist", key, path.string()));
    ++missing_;
  }
  void data(const std::string& key, const fs::path& path) {
    if (has_data_files(path)) return;
    const bool pattern = path.string().find_first_of("*?[") != std::string::npos;
    add(key, fmt::format("{}: {} {}", key, path.string(), pattern ? "matches no file" : "does not exist"));
    ++missing_;
  }
  void fail_where_any() const {
    if (texts_.empty()) return;
    const Fault fault = missing_ == texts_.size() ? Fault::missing_input : Fault::bad_recipe;
    if (texts_.size() == 1) throw Error(fault, texts_.front());
    throw Error(fault, fmt::format("{} problems in the recipe:\n  {}", texts_.size(), fmt::join(texts_, "\n  ")));
  }

 private:
  const ReadRecipe& read_;
  std::vector<std::string> texts_;
  size_t missing_ = 0;
};

const std::vector<std::string> kNames = {"q_proj",    "k_proj",  "v_proj",    "o_proj",
                                         "gate_proj", "up_proj", "down_proj", "lm_head"};

void check_targets(const ReadRecipe& read, const ModelConfig& model, Problems& problems) {
  const LoraSection& lora = read.recipe.lora;
  if (lora.init_from && !fs::exists(fs::path(*lora.init_from) / "adapter_config.json")) return;  // said elsewhere
  std::vector<std::string> paths;
  for (const auto [layer, p] : linears_of(model)) paths.push_back(module_path(layer, p));
  const auto matches_none = [&](const std::function<bool(const std::string&)>& matches) {
    return std::none_of(paths.begin(), paths.end(), matches);
  };
  for (const std::string& name : lora.target_modules.names) {
    if (matches_none([&](const std::string& path) { return path == name || path.ends_with("." + name); }) &&
        name != "embed_tokens") {
      problems.add("lora.target_modules",
                   fmt::format("lora.target_modules: {} is no linear of this model; allowed are {}{}", name,
                               fmt::join(kNames, ", "), did_you_mean(name, kNames)));
    }
  }
  if (problems.empty()) problems.of("lora.target_modules", [&] { adapter_layout_of(model, adapter_config(read)); });
  const auto check_pattern = [&](const char* key, const Pattern& patterns) {
    for (const auto& [pattern, value] : patterns) {
      problems.of(key, [&, &pattern = pattern] {
        AdapterConfig only;
        only.target_modules = R"((.*\.)?()" + pattern + ")";  // PEFT's rule for the keys of a pattern, as a target
        const AdapterMatcher matcher(only, key);
        if (matches_none([&](const std::string& path) { return matcher.match(path).has_value(); }))
          fail(Fault::bad_recipe, "{}: {} matches no linear of this model", key, pattern);
      });
    }
  };
  check_pattern("lora.rank_pattern", lora.rank_pattern);
  check_pattern("lora.alpha_pattern", lora.alpha_pattern);
}

void check_inputs(const Recipe& recipe, Problems& problems) {
  for (const DataFile& file : recipe.data.train) problems.data("data.train", file.path);
  for (const DataFile& file : recipe.data.validation.files) problems.data("data.validation", file.path);
  if (recipe.eval.prompts) problems.path("eval.prompts", *recipe.eval.prompts);
  if (recipe.lora.init_from) problems.path("lora.init_from", fs::path(*recipe.lora.init_from) / "adapter_config.json");
  TemplateChoice word{};
  if (!read_word(recipe.data.chat_template, word) && !fs::exists(recipe.data.chat_template)) {
    problems.add("data.template",
                 fmt::format("data.template: {} does not exist; allowed are {}, or a file or directory with a template",
                             recipe.data.chat_template, fmt::join(words_of<TemplateChoice>(), ", ")));
  }
  if (recipe.model.tokenizer) problems.path("model.tokenizer", *recipe.model.tokenizer);
  const std::string& resume = recipe.checkpoint.resume;
  if (resume != "auto" && resume != "never" && !fs::exists(fs::path(resume) / "manifest.json")) {
    problems.add("checkpoint.resume", fmt::format("checkpoint.resume: {} is no checkpoint; allowed are auto, never, or "
                                                  "a directory that holds a manifest.json",
                                                  resume));
  }
}

}  // namespace

MeshShape check_recipe(const ReadRecipe& read, const ModelConfig& model, int ranks, Inputs inputs) {
  const Recipe& recipe = read.recipe;
  Problems problems(read);
  MeshShape shape;
  problems.of("parallel.tp", [&] { shape = check_mesh(recipe, ranks); });
  if (const std::string why = why_not_tp(model, static_cast<int>(recipe.parallel.tp)); !why.empty())
    problems.add("parallel.tp", why);
  problems.of("parallel.pp", [&] {
    partition_layers(model.layers, static_cast<int>(recipe.parallel.pp), head_cost_in_layers(model));
  });
  if (recipe.data.max_length > model.max_positions) {
    problems.add("data.max_length",
                 fmt::format("data.max_length {} is more than the model's max_position_embeddings {}",
                             recipe.data.max_length, model.max_positions));
  }
  Problems targets(read);
  check_targets(read, model, targets);
  problems.take(targets);
  if (inputs == Inputs::must_exist) check_inputs(recipe, problems);
  problems.fail_where_any();
  return shape;
}

}  // namespace drover
