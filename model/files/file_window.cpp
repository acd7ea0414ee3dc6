#include "model/files/file_window.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "kernels/base/error.h"
#include "kernels/base/file_errors.h"
#include "kernels/base/forbidden_bytes.h"

namespace drover {

namespace {

// The pages around what was asked for.
void forbid_around(std::span<const std::byte> map, std::span<const std::byte> bytes,
                   void (*with)(std::span<const std::byte>)) {
  const auto before = static_cast<size_t>(bytes.data() - map.data());
  with(map.first(before));
  with(map.subspan(before + bytes.size()));
}

}  // namespace

FileWindow::FileWindow(FileWindow&& other) noexcept
    : map_(std::exchange(other.map_, {})), bytes_(std::exchange(other.bytes_, {})) {}

FileWindow::~FileWindow() {
  if (map_.empty()) return;
  forbid_around(map_, bytes_, allow_bytes);
  ::munmap(const_cast<std::byte*>(map_.data()), map_.size());
}

WindowedFile::WindowedFile(fs::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) fail_to_read("open", path_, errno);
  struct stat status {};
  const int reason = ::fstat(descriptor_, &status) == 0 ? 0 : errno;
  if (reason == 0 && S_ISREG(status.st_mode)) {
    size_ = static_cast<size_t>(status.st_size);
    return;
  }
  ::close(descriptor_);
  if (reason != 0) fail_to_read("read", path_, reason);
  fail(Fault::io, "cannot map {}: it is not a regular file", path_.string());
}

WindowedFile::~WindowedFile() { ::close(descriptor_); }

FileWindow WindowedFile::window(size_t offset, size_t count, FileAccess access) const {
  require(offset <= size_ && count <= size_ - offset, "a window lies inside its file");
  FileWindow window;
  if (count == 0) return window;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t before = offset % page, mapped = (before + count + page - 1) / page * page;
  void* data = ::mmap(nullptr, mapped, PROT_READ, MAP_SHARED, descriptor_, static_cast<off_t>(offset - before));
  if (data == MAP_FAILED) fail_to_read("map", path_, errno);
  if (access == FileAccess::scattered) ::madvise(data, mapped, MADV_RANDOM);
  window.map_ = {static_cast<const std::byte*>(data), mapped};
  window.bytes_ = window.map_.subspan(before, count);
  forbid_around(window.map_, window.bytes_, forbid_bytes);
  return window;
}

}  // namespace drover
