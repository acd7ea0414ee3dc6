#include "model/files/new_directory.h"

#include "kernels/base/error.h"

namespace drover {

fs::path without_slash(const fs::path& path) { return path.has_filename() ? path : path.parent_path(); }

void check_new_directory(const fs::path& target, const std::set<std::string>& replaceable) {
  std::error_code error;
  const fs::file_status status = fs::status(target, error);
  if (!fs::exists(status)) return;
  if (!fs::is_directory(status))
    fail(Fault::usage, "{} exists and is not a directory; name a new one", target.string());
  for (const auto& entry : fs::directory_iterator(target, error)) {
    const std::string name = entry.path().filename().string();
    if (replaceable.count(name) != 0) continue;
    fail(Fault::usage, "{} already holds {}; name a new or empty directory, or remove this one", target.string(), name);
  }
  if (error) fail(Fault::io, "cannot list {}: {}", target.string(), error.message());
}

}  // namespace drover
