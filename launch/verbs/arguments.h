// Options that several verbs share.
#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace drover {

// `VERB RECIPE [section.key=value …]`: the first word is the recipe, the rest are overrides.
struct RecipeArguments {
  std::vector<std::string> words;
  bool json = false;

  std::string recipe() const { return words.empty() ? "" : words.front(); }
  std::vector<std::string> overrides() const;
};
void add_recipe_options(CLI::App* verb, RecipeArguments& arguments);

struct ModelArguments {
  std::string model, adapter;
};
void add_model_options(CLI::App* verb, ModelArguments& arguments);

// CLI11's own message for this spells out the largest double.
CLI::Validator above_zero(const std::string& advice = "");

}  // namespace drover
