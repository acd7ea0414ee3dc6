// Whether a directory may be made under a name.
#pragma once
#include <set>
#include <string>

#include "kernels/base/file.h"

namespace drover {

// "adapter/" and "adapter" name the same directory.
fs::path without_slash(const fs::path& path);

// usage where something is there but an empty directory, or one of nothing but files named in `replaceable`; it names
// one that is in the way.
void check_new_directory(const fs::path& target, const std::set<std::string>& replaceable);

}  // namespace drover
