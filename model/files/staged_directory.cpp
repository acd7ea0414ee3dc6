#include "model/files/staged_directory.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>

#include "kernels/base/abandoned.h"
#include "kernels/base/error.h"
#include "model/files/new_directory.h"

namespace drover {

StagedDirectory::StagedDirectory(fs::path target, const std::set<std::string>& replaceable)
    : target_(without_slash(target)) {
  check_new_directory(target_, replaceable);
  std::error_code error;
  const fs::path parent = target_.has_parent_path() ? target_.parent_path() : fs::path(".");
  make_directories(parent);
  const std::string prefix = fmt::format(".{}.tmp-", target_.filename().string());
  remove_abandoned(target_, prefix);
  staged_ = parent / fmt::format("{}{}", prefix, ::getpid());
  do {
    if (descriptor_ >= 0) ::close(descriptor_);
    fs::remove_all(staged_, error);
    make_directories(staged_);
    descriptor_ = ::open(staged_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor_ < 0) {
      fail(Fault::io, "cannot open the directory {}: {}", staged_.string(),
           std::error_code(errno, std::generic_category()).message());
    }
  } while (!hold_temporary(descriptor_, staged_));
}

StagedDirectory::~StagedDirectory() {
  std::error_code ignored;
  if (!staged_.empty()) fs::remove_all(staged_, ignored);
  if (descriptor_ >= 0) ::close(descriptor_);
}

void StagedDirectory::commit() {
  require(!staged_.empty(), "a directory is committed once");
  sync_directory(staged_);
  std::error_code ignored;
  if (!fs::exists(target_, ignored) || fs::is_empty(target_, ignored)) {
    rename_durably(staged_, target_);
    staged_.clear();
    return;
  }
  // Swapped in one step, so that at every moment one of the two whole directories has the name.
  if (::renameat2(AT_FDCWD, staged_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) != 0) {
    if (errno != EINVAL && errno != ENOSYS) {
      fail(Fault::io, "cannot put the new {} into place: {}", target_.string(),
           std::error_code(errno, std::generic_category()).message());
    }
    const fs::path old = fs::path(staged_) += ".old";
    rename_durably(target_, old);
    rename_durably(staged_, target_);
    staged_ = old;
  }
  sync_directory(target_.has_parent_path() ? target_.parent_path() : fs::path("."));
  fs::remove_all(staged_, ignored);
  staged_.clear();
}

}  // namespace drover
