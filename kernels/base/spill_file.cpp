#include "kernels/base/spill_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "kernels/base/error.h"
#include "kernels/base/file_errors.h"

namespace drover {

namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

// O_TMPFILE is not known to every file system.
int file_without_name(const fs::path& directory) {
  const int file = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return file;
  std::string name = (directory / ".spill-XXXXXX").string();
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  if (named >= 0) ::unlink(name.c_str());
  return named;
}

}  // namespace

SpillFile::SpillFile(fs::path directory)
    : directory_(std::move(directory)), descriptor_(file_without_name(directory_)) {
  if (descriptor_ < 0)
    fail(Fault::io, "cannot make a temporary file in {}: {}", directory_.string(), std::strerror(errno));
  waiting_.reserve(kBufferBytes);
}

SpillFile::~SpillFile() {
  unmap();
  ::close(descriptor_);
}

void SpillFile::unmap() {
  if (map_ != nullptr) ::munmap(map_, mapped_);
  map_ = nullptr, mapped_ = 0;
}

void SpillFile::write(const void* data, size_t bytes) {
  unmap();
  const auto* from = static_cast<const std::byte*>(data);
  waiting_.insert(waiting_.end(), from, from + bytes);
  if (waiting_.size() >= kBufferBytes) flush();
}

void SpillFile::flush() {
  write_all(descriptor_, reinterpret_cast<const char*>(waiting_.data()), waiting_.size(),
            directory_ / "(temporary file)");
  written_ += waiting_.size();
  waiting_.clear();
}

std::span<const std::byte> SpillFile::bytes() {
  flush();
  if (map_ == nullptr && written_ > 0) {
    // What a file system notices only when it writes back would be read as zeros.
    if (::fdatasync(descriptor_) != 0) fail_to_write("write", directory_ / "(temporary file)", errno);
    void* map = ::mmap(nullptr, written_, PROT_READ, MAP_SHARED, descriptor_, 0);
    if (map == MAP_FAILED)
      fail(Fault::io, "cannot map a temporary file in {}: {}", directory_.string(), std::strerror(errno));
    map_ = map, mapped_ = written_;
  }
  return {static_cast<const std::byte*>(map_), mapped_};
}

void SpillFile::advise_done() const {
  if (map_ != nullptr) ::madvise(map_, mapped_, MADV_DONTNEED);
}

}  // namespace drover
