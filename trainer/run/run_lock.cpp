#include "trainer/run/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/base/error.h"
#include "kernels/base/host_name.h"

namespace drover {

namespace {

struct Holder {
  bool known = false;
  std::string host;
  int64_t pid = 0;
};

// An empty file is what a run leaves that was killed while it took the lock.
Holder holder_in(const fs::path& path) {
  const std::string text = read_text(path, 4096);
  if (text.empty()) return {};
  const auto j = nlohmann::json::parse(text, nullptr, false);
  if (!j.is_object() || !j.contains("host") || !j["host"].is_string() || !j.contains("pid") ||
      !j["pid"].is_number_integer()) {
    fail(Fault::bad_recipe, "{} is no lock of this program; choose another output.dir, or remove the file",
         path.string());
  }
  return {true, j["host"], j["pid"]};
}

bool same_file(int descriptor, const fs::path& path) {
  struct stat open {
  }, named{};
  return fstat(descriptor, &open) == 0 && stat(path.c_str(), &named) == 0 && open.st_dev == named.st_dev &&
         open.st_ino == named.st_ino;
}

std::mutex holding;
RunLock* held = nullptr;  // this process's, if it has one

[[noreturn]] void refuse(const fs::path& path, const Holder& holder) {
  fail(Fault::bad_recipe,
       "{} is in use by {}; wait for it, choose another output.dir, or remove the file if that run is gone",
       path.string(), holder.known ? fmt::format("process {} on {}", holder.pid, holder.host) : "another process");
}

}  // namespace

RunLock::RunLock(const fs::path& run) : path_(run / "lock") {
  while (true) {
    descriptor_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail(Fault::io, "cannot open {}: {}", path_.string(), std::strerror(errno));
    if (flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) {
      if (same_file(descriptor_, path_)) break;
      close(descriptor_);  // the run before removed it in between
      continue;
    }
    close(descriptor_);
    refuse(path_, holder_in(path_));
  }
  try {
    const bool held = flock(descriptor_, LOCK_EX | LOCK_NB) == 0;  // false: this file system has no locks
    const Holder holder = holder_in(path_);
    const bool alive_here = !held && holder.pid != getpid() && kill(static_cast<pid_t>(holder.pid), 0) == 0;
    if (holder.known && (holder.host != host_name() || alive_here)) refuse(path_, holder);
    const std::string text = nlohmann::json{{"host", host_name()}, {"pid", getpid()}}.dump();
    if (ftruncate(descriptor_, 0) != 0 ||
        pwrite(descriptor_, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
      fail(Fault::io, "cannot write {}: {}", path_.string(), std::strerror(errno));
    }
  } catch (...) {
    close(descriptor_);
    throw;
  }
  const std::lock_guard lock(holding);
  held = this;
}

RunLock::~RunLock() {
  const std::lock_guard lock(holding);
  if (held == this) held = nullptr;
  remove();
}

void RunLock::remove() {
  if (descriptor_ < 0) return;
  std::error_code ignored;
  fs::remove(path_, ignored);  // before the lock is let go
  close(std::exchange(descriptor_, -1));
}

void remove_held_lock() {
  const std::lock_guard lock(holding);
  if (held != nullptr) std::exchange(held, nullptr)->remove();
}

}  // namespace drover
