// Reading recipes: strict YAML, every problem at once, and `section.key=value` on top.
#pragma once
#include <map>
#include <span>
#include <string>
#include <vector>

#include "configs/schema.h"
#include "kernels/base/file.h"
#include "kernels/base/mesh_shape.h"

namespace drover {

struct ReadRecipe {
  Recipe recipe;
  std::map<std::string, std::string> origins;  // "lora.r" → "recipe.yaml:12" or "command line"; absent: default
  std::vector<std::string> notes;              // what was read otherwise than it was written; for people
};

// One Error (bad_recipe) with all problems, each with its place, what is allowed and the nearest key; missing_input
// when the file is absent.
ReadRecipe read_recipe(const fs::path& file, std::span<const std::string> overrides);

// Only `section.key=value`, for verbs that take no recipe: the defaults with these on top. bad_recipe for a key that is
// not in `allowed`, naming those that are. What is read otherwise than it was written is said.
Recipe read_overrides(std::span<const std::string> overrides, std::span<const std::string_view> allowed);

// The recipe with every key, its value, and where the value came from; reads back to the same recipe.
std::string resolved_recipe(const ReadRecipe& read);
// The same without origins, and of every path its last part only: for readers elsewhere.
std::string published_recipe(const ReadRecipe& read);

// Relative paths from the current directory on, so that the recipe means the same from anywhere.
ReadRecipe with_absolute_paths(ReadRecipe read);

// Keys and values that a resumed run must share with the first one, as "key" → "value".
std::map<std::string, std::string> identity(const Recipe& recipe);

// Every key with type, default and help, for --help.
std::string recipe_help();

// tp·pp·dp against the number of ranks; bad_recipe with the formula. dp is filled in.
MeshShape mesh_shape(const Recipe& recipe, int ranks);
// For training: also the global batch against micro_batch_size·dp.
MeshShape check_mesh(const Recipe& recipe, int ranks);

}  // namespace drover
