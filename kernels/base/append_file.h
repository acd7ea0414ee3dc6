// A file that grows by whole texts, each handed to the system at once.
#pragma once
#include <string>
#include <string_view>

#include "kernels/base/file.h"

namespace drover {

class AppendFile {
 public:
  enum class Begin : uint8_t { keep, anew };  // what the file held
  AppendFile(fs::path path, Begin begin);     // io with the reason, as all below
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  void write(std::string_view text);

 private:
  fs::path path_;
  int descriptor_ = -1;
};

}  // namespace drover
