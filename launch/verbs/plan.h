// drover plan, also of `train --dry-run`.
#pragma once
#include <optional>

#include "kernels/base/error.h"
#include "launch/verbs/arguments.h"

namespace drover {

// Without `ranks` the mesh that the recipe states.
Exit run_plan(const RecipeArguments& arguments, std::optional<int> ranks);

}  // namespace drover
