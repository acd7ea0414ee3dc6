// A directory that appears under its name only when it is complete: written next to it, synced, then renamed into
// place. What a killed process left of the same target is removed first.
#pragma once
#include <set>
#include <string>

#include "kernels/base/file.h"

namespace drover {

class StagedDirectory {
 public:
  // The target must be absent, an empty directory, or hold nothing but files named in `replaceable` (then it is swapped
  // out whole at commit). Otherwise usage, naming a file that is in the way.
  explicit StagedDirectory(fs::path target, const std::set<std::string>& replaceable = {});
  ~StagedDirectory();  // without commit, nothing stays
  StagedDirectory(const StagedDirectory&) = delete;
  StagedDirectory& operator=(const StagedDirectory&) = delete;

  const fs::path& path() const { return staged_; }  // write here
  const fs::path& target() const { return target_; }
  void commit();  // io with the reason

 private:
  fs::path target_, staged_;
  int descriptor_ = -1;  // of staged_, which it holds
};

}  // namespace drover
