// What a file of rows is when it is no file of rows: compressed, a table, another encoding.
#pragma once
#include <string_view>

#include "kernels/base/file.h"

namespace drover {

// bad_data saying what `file`, whose bytes are given, is, and the command that makes rows of it. Nothing happens for
// what may be JSON or text in UTF-8.
void refuse_other_kinds(const fs::path& file, std::string_view bytes);

}  // namespace drover
