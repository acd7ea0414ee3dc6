// What is being made has a temporary name with the number of the process, and is held (flock) while that lives. So a
// later process can tell what a killed one left, which may be as large as a model, and removes it.
#pragma once
#include <filesystem>
#include <string>

namespace drover {

// Holds what is open here under this name; false where it was removed before that, and has to be made anew. The hold
// ends with the descriptor. Where the file system has no locks nothing is held.
bool hold_temporary(int descriptor, const std::filesystem::path& path);

// Removes what lies next to `path` under the name PREFIX, then digits and dashes, and is held by nobody. What cannot be
// locked (on NFS a directory) stays.
void remove_abandoned(const std::filesystem::path& path, const std::string& prefix);

}  // namespace drover
