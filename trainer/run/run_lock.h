// output.dir/lock: one run at a time in a directory.
#pragma once
#include "kernels/base/file.h"

namespace drover {

// Holds flock(2) on the file as long as it lives, so that the kernel lets go of it when the process dies; the text
// (host, pid) is for people, and for hosts that share the directory on a file system without locks.
class RunLock {
 public:
  // bad_recipe naming process and host where another run is at work, or where the file is not a lock of this program.
  explicit RunLock(const fs::path& run);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  friend void remove_held_lock();
  void remove();

  fs::path path_;
  int descriptor_ = -1;
};

// Drops the lock that this process holds, if any: for a process that ends at once, from any thread.
void remove_held_lock();

}  // namespace drover
