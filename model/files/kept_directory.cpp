#include "model/files/kept_directory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "kernels/base/error.h"
#include "kernels/base/file_errors.h"
#include "model/files/new_directory.h"

namespace drover {

namespace {

constexpr const char *kIdentity = "identity", *kLock = "lock";
constexpr size_t kLargestIdentity = size_t{1} << 20;

// One that is there stays the same file, so that whoever holds it is noticed.
void make_lock(const fs::path& file) {
  const int descriptor = ::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) fail_to_write("create", file, errno);
  ::close(descriptor);
}

}  // namespace

KeptPaths::KeptPaths(const fs::path& target, std::string_view doing)
    : target(without_slash(target)),
      root((this->target.has_parent_path() ? this->target.parent_path() : fs::path(".")) /
           fmt::format(".{}.{}", this->target.filename().string(), doing)),
      files(root / "files"),
      journal(root / "journal") {}

KeptDirectory::KeptDirectory(const KeptPaths& paths, const std::string& identity) : paths_(paths) {
  check_new_directory(paths_.target, {});
  make_directories(paths_.root);
  make_lock(paths_.root / kLock);
  auto hold = FileHold::alone_if_free(paths_.root / kLock);
  if (!hold) {
    fail(Fault::usage, "another process is making {} right now; wait for it, or stop it", paths_.target.string());
  }
  hold_.emplace(std::move(*hold));
  const fs::path known = paths_.root / kIdentity;
  if (fs::exists(known)) {
    found_ = read_text(known, kLargestIdentity) == identity ? Found::same : Found::another;
    if (found_ == Found::another) {
      for (const fs::path& stale : {known, paths_.files, paths_.journal}) fs::remove_all(stale);
    }
  }
  make_directories(paths_.files);
  make_directories(paths_.journal);
  if (found_ != Found::same) write_text(known, identity);
}

void KeptDirectory::commit() {
  require(hold_.has_value(), "a directory is committed once");
  check_new_directory(paths_.target, {});
  sync_directory(paths_.files);
  rename_durably(paths_.files, paths_.target);
  abandon();
}

void KeptDirectory::abandon() {
  std::error_code ignored;
  fs::remove_all(paths_.root, ignored);
  hold_.reset();
}

}  // namespace drover
