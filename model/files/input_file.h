// A file that is read piece by piece, at any place: nothing of it is mapped, so that it takes no address space and its
// pages never count as this process's memory, however large it is. Reading is safe from several threads.
#pragma once
#include <cstddef>

#include "kernels/base/file.h"

namespace drover {

class InputFile {
 public:
  explicit InputFile(const fs::path& path);  // missing_input when absent, io where it is no regular file
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const fs::path& path() const { return path_; }
  size_t bytes() const { return bytes_; }  // as it was when it was opened
  // Bytes [offset, offset + bytes). io with the system's reason, or where the file has become shorter.
  void read(size_t offset, size_t bytes, void* out) const;
  void advise_scattered(bool on) const;  // single pages here and there: nothing is read ahead of them

 private:
  fs::path path_;
  int descriptor_ = -1;
  size_t bytes_ = 0;
};

}  // namespace drover
