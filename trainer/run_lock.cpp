#include "trainer/run_lock.h"

#include <unistd.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"

namespace drover {

RunLock::RunLock(const fs::path& run) : path_(run / "lock") {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  if (fs::exists(path_)) {
    const auto j = nlohmann::json::parse(read_text(path_, 4096), nullptr, false);
    const bool here = j.is_object() && j.value("host", "") == host;
    const int64_t pid = j.is_object() ? j.value("pid", int64_t{0}) : 0;
    if (!here || (pid > 0 && pid != getpid() && kill(static_cast<pid_t>(pid), 0) == 0)) {
      fail(Exit::bad_recipe, "{} is in use by process {} on {}; wait for it, choose another output.dir, or remove the file if that run is gone", path_.string(), pid,
           j.is_object() ? j.value("host", "an unknown host") : "an unknown host");
    }
  }
  write_text(path_, nlohmann::json{{"host", host}, {"pid", getpid()}}.dump());
}

RunLock::~RunLock() {
  std::error_code ignored;
  fs::remove(path_, ignored);
}

}  // namespace drover
