// Paths as people write them in a recipe.
#pragma once
#include <string>

namespace drover {

// Replaces `~/`, `$NAME` and `${NAME}` at the start by what the environment says. Empty, or what is wrong: a name that
// is not set, another user's `~name`, a name that stands further inside.
std::string expand_path(std::string& path);

}  // namespace drover
