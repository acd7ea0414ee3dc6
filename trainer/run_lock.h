// output.dir/lock: one run at a time in a directory.
#pragma once
#include "kernels/base/file.h"

namespace drover {

class RunLock {
 public:
  // 78 naming process and host where another run is at work. A lock whose process on this host is gone is taken over.
  explicit RunLock(const fs::path& run);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  fs::path path_;
};

}  // namespace drover
