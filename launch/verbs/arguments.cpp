#include "launch/verbs/arguments.h"

namespace drover {

std::vector<std::string> RecipeArguments::overrides() const {
  if (words.empty()) return {};
  return {words.begin() + 1, words.end()};
}

void add_recipe_options(CLI::App* verb, RecipeArguments& arguments) {
  verb->add_option("recipe", arguments.words, "RECIPE.yaml, then any section.key=value")->required();
  verb->add_flag("--json", arguments.json, "print the result as JSON");
}

void add_model_options(CLI::App* verb, ModelArguments& arguments) {
  verb->add_option("--model", arguments.model, "the model's directory");
  verb->add_option("--adapter", arguments.adapter, "a PEFT adapter's directory");
}

CLI::Validator above_zero(const std::string& advice) {
  return CLI::Validator(
      [advice](std::string& text) {
        double value = 0;
        const bool above = CLI::detail::lexical_cast(text, value) && value > 0;
        return above ? std::string() : text + " is not a number above 0" + advice;
      },
      "> 0");
}

}  // namespace drover
