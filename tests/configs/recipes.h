// Recipes of tests: written, read and refused; one with every key; the list of all keys by visiting the schema.
#pragma once
#include <fstream>
#include <string>
#include <type_traits>
#include <vector>

#include "configs/recipe.h"
#include "tests/base/scratch_directory.h"

namespace drover {

// A value for every key that is not its default, with pairs that exclude each other represented by one.
inline const std::string kEverything = R"(model:
  path: models/m
  tokenizer: "models/t: #2"
  weights: nf4
device: cpu
method: lora
lora:
  r: 8
  alpha: 12.5
  dropout: 5e-2
  target_modules: ['q_proj', v_proj]
  use_rslora: true
  rank_pattern: {'layers\.0\..*q_proj': 32, v_proj: 4}
  alpha_pattern:
    "a\"b": 1e-4
  init_from: adapters/a
data:
  train: [{path: a.jsonl, format: text, weight: 0.5, repeat: 0.25}, b.jsonl]
  validation: {share: 0.05}
  format: messages
  fields: {text: "my: body", role: who}
  special: true
  template: llama3.1
  template_date: 1 Jan 2025
  train_on: last
  max_length: 1024
  packing: false
  shuffle: false
  bad_rows: skip
train:
  dtype: fp32
  matmul: fp8
  micro_batch_size: 2
  global_batch_size: 64
  max_steps: 1000
  seed: 7
  deterministic: true
optim:
  learning_rate: 1e-4
  schedule: linear
  warmup_steps: 10
  betas: [0.8, 0.95]
  eps: 1.0e-6
  weight_decay: 0.1
  max_grad_norm: 0.3333333333333333
  lora_plus_ratio: 16
  min_lr_ratio: 0.1
parallel: {tp: 2, pp: 4, dp: 8, transport: staged}
memory:
  activation_checkpointing: full
  weights: host
eval: {every_steps: 5, prompts: p.jsonl, stop_after: 3}
checkpoint:
  every_steps: 50
  keep: 3
  keep_best: true
  resume: runs/x/step-5
log: {every_steps: 10, profile: true, tensorboard: true, trace: 3..5}
output:
  dir: runs/x
  adapter_dtype: bf16
)";

inline const std::string kLeast = "model: {path: m}\ndata: {train: t.jsonl}\noutput: {dir: o}\n";

class RecipeFile {
 public:
  explicit RecipeFile(const std::string& text) { std::ofstream(path(), std::ios::binary) << text; }
  fs::path path() const { return directory_ / "recipe.yaml"; }
  std::string at(int line, int column) const { return fmt::format("{}:{}:{}: ", path().string(), line, column); }
  ReadRecipe read(const std::vector<std::string>& overrides = {}) const { return read_recipe(path(), overrides); }

  // The message; a recipe that is accepted or leaves with another code fails the test.
  std::string refused(const std::vector<std::string>& overrides = {}) const {
    try {
      read(overrides);
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.fault()), static_cast<int>(Fault::bad_recipe)) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "the recipe was accepted";
    return {};
  }

 private:
  ScratchDirectory directory_;
};

inline Recipe recipe_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return RecipeFile(text).read(overrides).recipe;
}
inline std::string refusal_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return RecipeFile(text).refused(overrides);
}

struct Key {
  std::string section, name, wrong;  // `wrong`: a value of another type
  Info info;
  bool is_number = false;
  std::string full() const { return section.empty() ? name : section + "." + name; }
  // The least recipe without this key's own line, and the key with `value` at line 1 (alone) or 2 (in its section).
  std::string recipe_with(const std::string& key, const std::string& value) const {
    std::string text = section.empty() ? key + ": " + value + "\n" : section + ":\n  " + key + ": " + value + "\n";
    if (section != "model") text += "model: {path: m}\n";
    if (section != "data") text += "data: {train: t.jsonl}\n";
    if (section != "output") text += "output: {dir: o}\n";
    if (section == "model" && name != "path") text.insert(text.find('\n') + 1, "  path: m\n");
    if (section == "data" && name != "train") text.insert(text.find('\n') + 1, "  train: t.jsonl\n");
    if (section == "output" && name != "dir") text.insert(text.find('\n') + 1, "  dir: o\n");
    return text;
  }
  int line() const {
    if (section.empty()) return 1;
    const bool beside_required = (section == "model" && name != "path") || (section == "data" && name != "train") ||
                                 (section == "output" && name != "dir");
    return beside_required ? 3 : 2;
  }
  int column() const { return section.empty() ? 1 : 3; }
};

struct KeyCollector {
  std::vector<Key> keys;
  std::string current;
  void section(const std::string& name) { current = name; }
  template <typename T>
  void operator()(const char* name, T&, const Info& info) {
    constexpr bool is_int = std::is_same_v<T, int64_t> || std::is_same_v<T, std::optional<int64_t>>;
    constexpr bool is_double = std::is_same_v<T, double> || std::is_same_v<T, std::optional<double>>;
    const char* wrong = "[[a]]";
    if constexpr (std::is_same_v<T, bool>) wrong = "yes";
    if constexpr (is_int) wrong = "1.5";
    if constexpr (is_double) wrong = "many";
    if constexpr (std::is_same_v<T, Pattern>) wrong = "5";
    keys.push_back({current, name, wrong, info, is_int || is_double});
  }
};

inline std::vector<Key> all_keys() {
  KeyCollector collector;
  Recipe recipe;
  recipe.fields(collector);
  return collector.keys;
}

}  // namespace drover
