#include "launch/verbs/run_recipe.h"

#include "kernels/base/hub_cache.h"
#include "kernels/base/log.h"
#include "model/config.h"

namespace drover {

namespace {

void fit_max_length(ReadRecipe& read) {
  const fs::path model = read.recipe.model.path;
  std::error_code ignored;
  if (read.origins.count("data.max_length") != 0 || !fs::exists(model / "config.json", ignored)) return;
  const int64_t positions = read_model_config(model).max_positions;
  if (read.recipe.data.max_length <= positions) return;
  read.recipe.data.max_length = positions;
  read.origins["data.max_length"] = "the model's positions";
  read.notes.push_back(fmt::format("data.max_length is {}, the model's positions", positions));
}

}  // namespace

ReadRecipe read_run_recipe(const RecipeArguments& arguments) {
  ReadRecipe read = read_recipe(arguments.recipe(), arguments.overrides());
  fit_max_length(read);
  for (const std::string& note : read.notes) log::write(note);
  return read;
}

std::string model_directory(const std::string& given) {
  const std::optional<std::string> cached = cached_model(given);
  if (!cached) return given;
  log::info("{} is {} in the local hub cache", given, *cached);
  return *cached;
}

}  // namespace drover
