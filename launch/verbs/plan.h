// drover plan, also of `train --dry-run`.
#pragma once
#include <optional>

#include "launch/exit_code.h"
#include "launch/verbs/arguments.h"

namespace drover {

// Without `ranks` the mesh that the recipe states; `all`: a line for every rank.
Exit run_plan(const RecipeArguments& arguments, std::optional<int> ranks, bool all = false);

}  // namespace drover
