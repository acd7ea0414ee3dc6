// Lines for people: to stderr, by rank 0 only unless said otherwise. Results of a verb go to stdout and not through
// here.
#pragma once
#include <fmt/format.h>

#include <string_view>

#include "kernels/base/error.h"

namespace drover::log {

void set_rank(int rank, int ranks);
int rank();

// `text` as it is. What cannot be written is dropped: no log ends a run, and a reader that has stopped holds it up for
// a second at most. Any thread.
void put(std::string_view text);
void write(std::string_view line);      // rank 0 only
void write_any(std::string_view line);  // every rank, prefixed with its rank when there are several

template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  write("warning: " + fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace drover::log
