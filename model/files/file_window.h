// A file of which only what is being read is mapped: models are larger than a process's memory, and may be larger than
// the address space that it is allowed (ulimit -v).
#pragma once
#include <cstddef>
#include <span>

#include "kernels/base/file.h"

namespace drover {

// A map of some bytes of a file, read-only, until it is destroyed. What was read of it does not stay this process's
// memory after that.
class FileWindow {
 public:
  FileWindow(FileWindow&& other) noexcept;
  FileWindow(const FileWindow&) = delete;
  FileWindow& operator=(const FileWindow&) = delete;
  ~FileWindow();

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::byte* data() const { return bytes_.data(); }

 private:
  friend class WindowedFile;
  FileWindow() = default;
  std::span<const std::byte> map_;  // whole pages
  std::span<const std::byte> bytes_;
};

enum class FileAccess : uint8_t { in_order, scattered };  // scattered: nothing is read ahead

// An open file. Windows may be made by several threads and outlive it.
class WindowedFile {
 public:
  explicit WindowedFile(fs::path path);  // missing_input when absent, io when it cannot be read or is no regular file
  ~WindowedFile();
  WindowedFile(const WindowedFile&) = delete;
  WindowedFile& operator=(const WindowedFile&) = delete;

  const fs::path& path() const { return path_; }
  size_t size() const { return size_; }  // when it was opened
  // Bytes [offset, offset + count), which lie inside. io where the process has no room for them.
  FileWindow window(size_t offset, size_t count, FileAccess access = FileAccess::in_order) const;

 private:
  fs::path path_;
  int descriptor_ = -1;
  size_t size_ = 0;
};

}  // namespace drover
