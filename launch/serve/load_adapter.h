// From a directory to a name that can be asked for, while passes go on.
#pragma once
#include <functional>

#include "launch/serve/serving.h"

namespace drover {

// Checks what can be checked here (a thread that may take its time), has all ranks attach it, and gives it each of the
// names, in place of whatever had it. `then`, once: on the loop's thread, or here where a check fails; without an error
// it is served by all names.
void load_adapter(Serving& serving, const std::vector<std::string>& names, const fs::path& directory,
                  std::function<void(const std::optional<Error>&)> then);

// An adapter that has a slot already.
std::shared_ptr<ServedModel> served_adapter(const Serving& serving, const std::string& name, const fs::path& directory);

}  // namespace drover
