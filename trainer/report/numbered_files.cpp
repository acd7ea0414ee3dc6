#include "trainer/report/numbered_files.h"

#include <algorithm>
#include <charconv>

namespace drover {

std::vector<std::pair<int64_t, fs::path>> numbered_files(const fs::path& directory, std::string_view before,
                                                         std::string_view after) {
  std::vector<std::pair<int64_t, fs::path>> files;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.size() <= before.size() + after.size() || !name.starts_with(before) || !name.ends_with(after)) continue;
    int64_t number = 0;
    const char* const end = name.data() + name.size() - after.size();
    const auto [stopped, wrong] = std::from_chars(name.data() + before.size(), end, number);
    if (wrong == std::errc() && stopped == end) files.emplace_back(number, entry.path());
  }
  std::ranges::sort(files);
  return files;
}

}  // namespace drover
