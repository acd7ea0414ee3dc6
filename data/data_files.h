// Which files a path of the recipe's data names, and what a file is by its name.
#pragma once
#include <vector>

#include "kernels/base/file.h"

namespace drover {

// A file; or those of a directory, or of a pattern with *, ? or […], in the order of their names: all of one kind, and
// not the hidden ones. missing_input where there is none; bad_data for a directory that holds something else, too.
std::vector<fs::path> data_files(const fs::path& path);

// Whether there is one; what is wrong with them is found when they are read.
bool has_data_files(const fs::path& path);

// NAME.txt or NAME.txt.gz: the whole of it is one document.
bool is_text_file(const fs::path& file);

}  // namespace drover
