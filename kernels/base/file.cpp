#include "kernels/base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "kernels/base/abandoned.h"
#include "kernels/base/error.h"
#include "kernels/base/file_errors.h"
#include "kernels/base/forbidden_bytes.h"

namespace drover {

namespace {

fs::path parent_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags) : value_(::open(path.c_str(), flags | O_CLOEXEC)) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

// The last page of a map reaches beyond the file.
std::span<const std::byte> beyond_end(const std::byte* data, size_t size) {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return {data + size, (page - size % page) % page};
}

int synced(int descriptor) {
  int result;
  do result = ::fsync(descriptor);
  while (result != 0 && errno == EINTR);
  return result;
}

}  // namespace

void fail_to_read(const char* what, const fs::path& path, int reason) {
  const bool missing = reason == ENOENT || reason == ENOTDIR;
  fail(missing ? Fault::missing_input : Fault::io, "cannot {} {}: {}{}", what, path.string(), std::strerror(reason),
       missing ? from_here(path) : "");
}

void fail_to_write(const char* what, const fs::path& path, int reason, size_t needed_bytes) {
  std::string room;
  if (reason == ENOSPC || reason == EDQUOT) {
    std::error_code ignored;
    const fs::space_info space = fs::space(parent_of(path), ignored);
    room = fmt::format("; {} bytes are free there", ignored ? 0 : space.available);
    if (needed_bytes > 0) room += fmt::format(" and at least {} are needed", needed_bytes);
    room += "; free some space or choose another directory";
  }
  fail(Fault::io, "cannot {} {}: {}{}", what, path.string(), std::strerror(reason), room);
}

void write_all(int descriptor, const char* from, size_t bytes, const fs::path& path) {
  while (bytes > 0) {
    const ssize_t put = ::write(descriptor, from, std::min(bytes, size_t{1} << 30));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) fail_to_write("write", path, put == 0 ? ENOSPC : errno, bytes);
    from += put;
    bytes -= static_cast<size_t>(put);
  }
}

std::string from_here(const fs::path& path) {
  std::error_code ignored;
  return path.is_absolute() ? "" : fmt::format(" (from {})", fs::current_path(ignored).string());
}

std::string read_text(const fs::path& path, size_t limit_bytes) {
  Descriptor file(path, O_RDONLY);
  if (file.get() < 0) fail_to_read("open", path, errno);
  std::string text;
  struct stat status {};
  if (::fstat(file.get(), &status) == 0 && S_ISREG(status.st_mode)) {
    text.reserve(std::min(static_cast<size_t>(status.st_size), limit_bytes));
  }
  char buffer[65536];
  while (true) {
    const ssize_t got = ::read(file.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_to_read("read", path, errno);
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > limit_bytes) {
      fail(Fault::bad_data, "{} is larger than the {} bytes that are allowed for such a file", path.string(),
           limit_bytes);
    }
  }
}

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  Descriptor file(path, O_RDONLY);
  if (file.get() < 0) fail_to_read("open", path, errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_to_read("read", path, errno);
  if (!S_ISREG(status.st_mode)) fail(Fault::io, "cannot map {}: it is not a regular file", path.string());
  size_ = static_cast<size_t>(status.st_size);
  if (size_ == 0) return;
  void* data = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) fail_to_read("map", path, errno);
  data_ = static_cast<const std::byte*>(data);
  forbid_bytes(beyond_end(data_, size_));
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  allow_bytes(beyond_end(data_, size_));
  ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

void MappedFile::advise_done(size_t offset, size_t bytes) const {
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = std::min(offset + bytes, size_) / page * page;
  if (begin < end) ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)) {
  static std::atomic<int> ordinal{0};
  std::error_code unknown;
  const fs::file_status status = fs::status(path_, unknown);
  if (fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status)) {
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail_to_write("open", path_, errno);
    return;
  }
  if (fs::is_symlink(path_, unknown)) path_ = fs::weakly_canonical(path_, unknown);
  remove_abandoned(path_, path_.filename().string() + ".tmp-");
  temporary_ = path_;
  temporary_ += fmt::format(".tmp-{}-{}", ::getpid(), ordinal++);
  do {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail_to_write("create", path_, errno);
  } while (!hold_temporary(descriptor_, temporary_));
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  write_all(descriptor_, static_cast<const char*>(data), bytes, path_);
}

void AtomicFile::commit() {
  require(descriptor_ >= 0, "a file is committed once");
  if (temporary_.empty()) {
    if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) fail_to_write("write", path_, errno);
    return;
  }
  if (synced(descriptor_) != 0) fail_to_write("write", path_, errno);
  // A network file system may report a full disk only here.
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) fail_to_write("write", path_, errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_to_write("rename a finished file to", path_, errno);
  temporary_.clear();
  sync_directory(parent_of(path_));
}

namespace {

bool is_at(int descriptor, const fs::path& path) {
  struct stat open {
  }, named{};
  return ::fstat(descriptor, &open) == 0 && ::stat(path.c_str(), &named) == 0 && open.st_dev == named.st_dev &&
         open.st_ino == named.st_ino;
}

}  // namespace

FileHold FileHold::shared(const fs::path& file) {
  FileHold hold(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (hold.descriptor_ < 0) fail_to_read("open", file, errno);
  int result;
  do result = ::flock(hold.descriptor_, LOCK_SH);
  while (result != 0 && errno == EINTR);
  if (!is_at(hold.descriptor_, file)) fail(Fault::io, "{} was removed while it was opened", file.string());
  return hold;
}

std::optional<FileHold> FileHold::alone_if_free(const fs::path& file) {
  FileHold hold(::open(file.c_str(), O_RDWR | O_CLOEXEC));  // network file systems lock alone only what may be written
  if (hold.descriptor_ < 0) return std::nullopt;
  if (::flock(hold.descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return std::nullopt;
  return hold;
}

FileHold::FileHold(FileHold&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileHold::~FileHold() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

bool same_file(const fs::path& a, const fs::path& b) {
  std::error_code error;
  return fs::equivalent(a, b, error) && !error;
}

void write_text(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void make_directories(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) fail_to_write("create the directory", path, error.value());
  if (!fs::is_directory(path, error)) fail_to_write("create the directory", path, ENOTDIR);
}

void sync_directory(const fs::path& path) {
  Descriptor directory(path, O_RDONLY | O_DIRECTORY);
  if (directory.get() < 0) fail_to_write("open the directory", path, errno);
  // Some file systems cannot sync a directory and say EINVAL; there is nothing more to do on them.
  if (synced(directory.get()) != 0 && errno != EINVAL) fail_to_write("sync the directory", path, errno);
}

void sync_file(const fs::path& path) {
  Descriptor file(path, O_RDONLY);
  if (file.get() < 0) fail_to_write("open", path, errno);
  if (synced(file.get()) != 0) fail_to_write("sync", path, errno);
}

void rename_durably(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    const int reason = errno;
    fail_to_write(fmt::format("rename {} to", from.string()).c_str(), to, reason);
  }
  sync_directory(parent_of(to));
}

}  // namespace drover
