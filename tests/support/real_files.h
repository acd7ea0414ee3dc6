// Where the real models and tokenizers lie that tests/run fetches.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "kernels/base/file.h"

namespace drover {

// $variable, else `name` in the cache. Nothing where it is not there and DROVER_OFFLINE=1 allows that; else the test
// fails.
inline std::optional<fs::path> real_path(const char* variable, const std::string& name) {
  const auto setting = [](const char* key) {
    const char* value = std::getenv(key);
    return std::string(value == nullptr ? "" : value);
  };
  const fs::path cache =
      setting("DROVER_CACHE").empty() ? fs::path(DROVER_BINARY_DIR) / "cache" : fs::path(setting("DROVER_CACHE"));
  const fs::path path = setting(variable).empty() ? cache / name : fs::path(setting(variable));
  if (fs::exists(path)) return path;
  if (setting("DROVER_OFFLINE") != "1")
    ADD_FAILURE() << path << " is not there; run tests/run, set " << variable << ", or set DROVER_OFFLINE=1";
  return std::nullopt;
}

}  // namespace drover
