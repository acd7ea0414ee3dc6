#include "kernels/base/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "kernels/base/file_errors.h"

namespace drover {

AppendFile::AppendFile(fs::path path, Begin begin) : path_(std::move(path)) {
  const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND | (begin == Begin::anew ? O_TRUNC : 0);
  descriptor_ = ::open(path_.c_str(), flags, 0666);
  if (descriptor_ < 0) fail_to_write("open", path_, errno);
}

AppendFile::~AppendFile() { ::close(descriptor_); }

void AppendFile::write(std::string_view text) { write_all(descriptor_, text.data(), text.size(), path_); }

}  // namespace drover
