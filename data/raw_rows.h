// The rows of a file before they are read: its lines, or the elements of the one JSON list that it is.
#pragma once
#include <cstdint>
#include <functional>
#include <string_view>

#include "kernels/base/file.h"

namespace drover {

struct RawRow {
  std::string_view text;
  int64_t line = 0;     // where it begins, from 1
  int64_t element = 0;  // from 1, of a list; 0: a line
};

// In the file's order; empty lines are passed over. bad_data naming line and element for a list that does not end, or
// that is not all of the file.
void for_each_raw_row(const fs::path& file, std::string_view text, const std::function<void(const RawRow&)>& use);

}  // namespace drover
