// Bytes that are written one after the other and then read in any order, in a file without a name: it vanishes with
// the object, or with the process. Errors are Fault::io with the directory and the system's reason.
#pragma once
#include <vector>

#include "kernels/base/file.h"

namespace drover {

class SpillFile {
 public:
  explicit SpillFile(fs::path directory);
  ~SpillFile();
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;
  void write(const void* data, size_t bytes);
  size_t size() const { return written_ + waiting_.size(); }
  std::span<const std::byte> bytes();  // all that was written; until the next write
  void advise_done() const;            // what was read leaves the process, and comes back when it is read again

 private:
  void flush();
  void unmap();
  fs::path directory_;
  int descriptor_ = -1;
  size_t written_ = 0;
  std::vector<std::byte> waiting_;
  void* map_ = nullptr;
  size_t mapped_ = 0;
};

}  // namespace drover
