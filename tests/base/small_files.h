// A test in which files of this process may not grow beyond some bytes, as on a full disk.
#pragma once
#include <sys/resource.h>

#include <csignal>
#include <cstdint>

namespace drover {

class SmallFiles {
 public:
  explicit SmallFiles(uint64_t bytes) : on_signal_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit small = before_;
    small.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &small);
  }
  ~SmallFiles() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, on_signal_);
  }
  SmallFiles(const SmallFiles&) = delete;
  SmallFiles& operator=(const SmallFiles&) = delete;

 private:
  void (*on_signal_)(int);
  rlimit before_{};
};

}  // namespace drover
