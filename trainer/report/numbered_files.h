// Files and directories that are named by a step: answers-step-12.jsonl, trace/step-3.json, step-40.
#pragma once
#include <string_view>
#include <vector>

#include "kernels/base/file.h"

namespace drover {

// Those of `directory` that are called `before`, a number, `after`; by number, ascending. Nothing where the directory
// is not there.
std::vector<std::pair<int64_t, fs::path>> numbered_files(const fs::path& directory, std::string_view before,
                                                         std::string_view after);

}  // namespace drover
