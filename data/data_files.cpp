#include "data/data_files.h"

#include <glob.h>

#include <algorithm>
#include <array>

#include "kernels/base/error.h"

namespace drover {

namespace {

constexpr const char* kKinds = ".jsonl, .ndjson, .json or .txt, also with .gz";

// .jsonl, .json or .txt; empty for what is none of them by its name.
std::string kind_of(const fs::path& file) {
  const std::string last = file.extension().string();
  const std::string kind = last == ".gz" ? file.stem().extension().string() : last;
  if (kind == ".ndjson") return ".jsonl";
  return kind == ".jsonl" || kind == ".json" || kind == ".txt" ? kind : "";
}

std::vector<fs::path> in_directory(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    const fs::path& path = entry->path();
    if (path.filename().string().starts_with('.')) continue;
    if (!fs::is_regular_file(path) || kind_of(path).empty()) {
      fail(Fault::bad_data, "{}: {} in it is no file of rows by its name ({}); name those that are, as in {}/*.jsonl",
           directory.string(), path.filename().string(), kKinds, directory.string());
    }
    files.push_back(path);
  }
  if (error) fail(Fault::io, "{}: {}", directory.string(), error.message());
  return files;
}

bool is_pattern(const fs::path& path) { return path.string().find_first_of("*?[") != std::string::npos; }

std::vector<fs::path> matches_of(const fs::path& pattern) {
  if (pattern.string().find("**") != std::string::npos)
    fail(Fault::bad_recipe, "{}: ** is not supported; one * stands for a part of one name", pattern.string());
  glob_t found{};
  const int code = glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found);
  std::vector<fs::path> files(found.gl_pathv, found.gl_pathv + (code == 0 ? found.gl_pathc : 0));
  globfree(&found);
  if (code != 0 && code != GLOB_NOMATCH) fail(Fault::io, "{}: its directories cannot be read", pattern.string());
  for (const fs::path& file : files) {
    if (fs::is_directory(file))
      fail(Fault::bad_data, "{}: {} is a directory; name files", pattern.string(), file.string());
  }
  return files;
}

}  // namespace

bool is_text_file(const fs::path& file) { return kind_of(file) == ".txt"; }

bool has_data_files(const fs::path& path) {
  if (fs::exists(path)) return true;
  return is_pattern(path) && !matches_of(path).empty();
}

std::vector<fs::path> data_files(const fs::path& path) {
  const bool directory = fs::is_directory(path);
  if (!directory && (fs::exists(path) || !is_pattern(path))) return {path};
  std::vector<fs::path> files = directory ? in_directory(path) : matches_of(path);
  if (files.empty())
    fail(Fault::missing_input, "{}: no file {}", path.string(), directory ? "is in it" : "matches this pattern");
  std::ranges::sort(files, {}, [](const fs::path& file) { return file.string(); });
  const auto other =
      std::ranges::find_if(files, [&](const fs::path& file) { return kind_of(file) != kind_of(files.front()); });
  if (other != files.end()) {
    fail(Fault::bad_data, "{}: it names files of several kinds, {} and {}; give each kind a path of its own",
         path.string(), files.front().filename().string(), other->filename().string());
  }
  return files;
}

}  // namespace drover
