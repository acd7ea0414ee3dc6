// A recipe against the model and the mesh, before any data is read: everything that only they show together, all
// problems at once.
#pragma once
#include "configs/recipe.h"
#include "model/config.h"

namespace drover {

enum class Inputs { must_exist, may_be_absent };  // may_be_absent: plans are made where the data is not

// One Error (bad_recipe) with every problem, its key and place, what is allowed; missing_input where all that is wrong
// is a missing file. Gives the mesh, dp filled in.
MeshShape check_recipe(const ReadRecipe& read, const ModelConfig& model, int ranks, Inputs inputs);

}  // namespace drover
