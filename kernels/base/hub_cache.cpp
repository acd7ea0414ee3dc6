#include "kernels/base/hub_cache.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace drover {

namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string first_line(const fs::path& file) {
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return {};
  const std::string text = read_text(file, 4096);
  return text.substr(0, text.find_first_of("\r\n"));
}

}  // namespace

fs::path hub_cache() {
  if (const std::string cache = environment("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (const std::string home = environment("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  if (const std::string cache = environment("XDG_CACHE_HOME"); !cache.empty())
    return fs::path(cache) / "huggingface" / "hub";
  return fs::path(environment("HOME")) / ".cache" / "huggingface" / "hub";
}

bool is_hub_name(const std::string& name) {
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.';
  };
  const size_t slash = name.find('/');
  return slash != std::string::npos && slash > 0 && name[0] != '.' && slash + 1 < name.size() &&
         std::ranges::all_of(name.substr(0, slash), plain) && std::ranges::all_of(name.substr(slash + 1), plain);
}

std::optional<std::string> cached_model(const std::string& name) {
  std::error_code ignored;
  if (!is_hub_name(name) || fs::exists(name, ignored)) return std::nullopt;
  std::string folder = "models--" + name;
  folder.replace(folder.find('/'), 1, "--");
  const fs::path model = hub_cache() / folder;
  if (const std::string commit = first_line(model / "refs" / "main"); !commit.empty()) {
    const fs::path snapshot = model / "snapshots" / commit;
    if (fs::is_directory(snapshot, ignored)) return snapshot.string();
  }
  std::vector<fs::path> snapshots;
  for (const auto& entry : fs::directory_iterator(model / "snapshots", ignored)) snapshots.push_back(entry.path());
  if (snapshots.size() != 1 || !fs::is_directory(snapshots[0], ignored)) return std::nullopt;
  return snapshots[0].string();
}

}  // namespace drover
