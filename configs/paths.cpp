#include "configs/paths.h"

#include <algorithm>
#include <cstdlib>

#include "kernels/base/error.h"

namespace drover {

namespace {

std::string environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? "" : value;
}

bool starts_name(char c) { return c == '_' || std::isalpha(static_cast<unsigned char>(c)) != 0; }
bool in_name(char c) { return starts_name(c) || (c >= '0' && c <= '9'); }

// `$NAME` or `${NAME}` at `from`: the name, and where it ends; no name where there is none.
std::pair<std::string, size_t> name_at(const std::string& path, size_t from) {
  const bool braced = path.compare(from, 2, "${") == 0;
  const size_t begin = from + (braced ? 2 : 1);
  if (begin >= path.size() || !starts_name(path[begin])) return {};
  size_t end = begin;
  while (end < path.size() && in_name(path[end])) ++end;
  if (braced && (end == path.size() || path[end] != '}')) return {};
  return {path.substr(begin, end - begin), end + (braced ? 1 : 0)};
}

std::string expand_home(std::string& path) {
  const size_t slash = std::min(path.find('/'), path.size());
  if (slash != 1)
    return fmt::format("{} is not expanded, only ~/ is; write that directory in full", path.substr(0, slash));
  const std::string home = environment("HOME");
  if (home.empty()) return "~ stands for $HOME, which is not set; write the directory in full";
  path.replace(0, 1, home);
  return {};
}

}  // namespace

std::string expand_path(std::string& path) {
  size_t from = 0;
  if (path.starts_with('~')) {
    if (std::string wrong = expand_home(path); !wrong.empty()) return wrong;
    from = environment("HOME").size();
  } else if (path.starts_with('$')) {
    const auto [name, end] = name_at(path, 0);
    if (!name.empty()) {
      const std::string value = environment(name);
      if (value.empty())
        return fmt::format("${} is not set in the environment; set it, or write the directory in full", name);
      path.replace(0, end, value);
      from = value.size();
    }
  }
  for (size_t at = path.find('$', from); at != std::string::npos; at = path.find('$', at + 1)) {
    if (const auto [name, end] = name_at(path, at); !name.empty())
      return fmt::format("{} is expanded at the start of a path only; write its value here", path.substr(at, end - at));
  }
  return {};
}

}  // namespace drover
