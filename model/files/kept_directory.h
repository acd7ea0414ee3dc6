// A directory that takes long to make and appears under its name only when it is complete. What was made of it survives
// the process, and a later one that makes the same continues there. Next to TARGET lies .TARGET.DOING
// (.TARGET.merging):
//   files/     what will be TARGET
//   journal/   what the maker notes of them
//   identity   what is being made, in words that only the maker understands
//   lock       held (flock) by whom it is being made
#pragma once
#include <optional>
#include <string>

#include "kernels/base/file.h"

namespace drover {

struct KeptPaths {
  KeptPaths(const fs::path& target, std::string_view doing);  // a slash at its end is no other directory
  fs::path target, root, files, journal;
};

class KeptDirectory {
 public:
  enum class Found : uint8_t { nothing, same, another };

  // The target must be absent or an empty directory, else usage; usage too while another process makes it. What is left
  // of another identity is removed.
  KeptDirectory(const KeptPaths& paths, const std::string& identity);

  const KeptPaths& paths() const { return paths_; }
  Found found() const { return found_; }
  void commit();   // files/ becomes the target; io with the reason
  void abandon();  // nothing stays

 private:
  KeptPaths paths_;
  Found found_ = Found::nothing;
  std::optional<FileHold> hold_;
};

}  // namespace drover
