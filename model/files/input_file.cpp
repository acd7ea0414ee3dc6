#include "model/files/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernels/base/error.h"

namespace drover {

namespace {

[[noreturn]] void fail_to_read(const char* what, const fs::path& path, int reason) {
  const bool missing = reason == ENOENT || reason == ENOTDIR;
  fail(missing ? Fault::missing_input : Fault::io, "cannot {} {}: {}{}", what, path.string(), std::strerror(reason),
       missing ? from_here(path) : "");
}

}  // namespace

InputFile::InputFile(const fs::path& path) : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (descriptor_ < 0) fail_to_read("open", path, errno);
  struct stat status {};
  const int reason = ::fstat(descriptor_, &status) == 0 ? 0 : errno;
  const bool regular = reason == 0 && S_ISREG(status.st_mode);
  bytes_ = static_cast<size_t>(status.st_size);
  if (regular) return;
  ::close(descriptor_);
  if (reason != 0) fail_to_read("read", path, reason);
  fail(Fault::io, "cannot read {}: it is not a regular file", path.string());
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::read(size_t offset, size_t bytes, void* out) const {
  constexpr size_t kAtOnce = size_t{1} << 30;  // one call of the system takes less than 2 GiB
  auto* to = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, to, std::min(bytes, kAtOnce), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_to_read("read", path_, errno);
    if (got == 0) {
      fail(Fault::io, "{} has become shorter since it was opened, when it had {} bytes; fetch the model again",
           path_.string(), bytes_);
    }
    to += got, offset += static_cast<size_t>(got), bytes -= static_cast<size_t>(got);
  }
}

void InputFile::advise_scattered(bool on) const {
  ::posix_fadvise(descriptor_, 0, 0, on ? POSIX_FADV_RANDOM : POSIX_FADV_NORMAL);
}

}  // namespace drover
