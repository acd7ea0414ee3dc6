// What output.dir/lock (run_lock.h) says to who only looks on: it is read and never taken, as a run that begins at the
// same moment would find it taken.
#pragma once
#include "kernels/base/file.h"

namespace drover {

enum class LockState : uint8_t {
  free,       // there is none
  here,       // a process of this machine holds it
  elsewhere,  // a process of another machine, alive or not
  left,       // its process is gone, or it names none
};

struct SeenLock {
  LockState state = LockState::free;
  std::string host;  // empty where none is named
  int64_t pid = 0;   // 0: likewise
  bool held() const { return state == LockState::here || state == LockState::elsewhere; }
};

SeenLock seen_lock(const fs::path& run);  // io where the file cannot be read

}  // namespace drover
