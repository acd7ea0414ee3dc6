// The recipe of a run as the verbs take it, and models by the names that people know them by.
#pragma once
#include <string>

#include "configs/recipe.h"
#include "launch/verbs/arguments.h"

namespace drover {

// Reads the recipe with its overrides. Where data.max_length is not given and the model has fewer positions, it is
// those. Says what was read otherwise than it was written. Errors as read_recipe and read_model_config have them.
ReadRecipe read_run_recipe(const RecipeArguments& arguments);

// A directory as it is; a hub's name that is none becomes its directory in the local hub cache, and that is said.
std::string model_directory(const std::string& given);

}  // namespace drover
