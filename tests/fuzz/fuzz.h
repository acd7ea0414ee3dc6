// What the targets of tests/fuzz share. A target calls a reader on bytes; the reader may take them, or refuse them by
// an Error of a kind that the target allows. Whatever else comes out of it ends the program, and that is a finding.
#pragma once
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <string>

#include "kernels/base/error.h"
#include "kernels/base/file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace drover::fuzz {

// A folder of this process under TMPDIR, gone when it ends well.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / fmt::format("drover-fuzz-{}", ::getpid())) { make_directories(path_); }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

inline const fs::path& folder() {
  static const Folder only;
  return only.path();
}

// A file of these bytes in the folder.
inline fs::path written(const char* name, std::string_view bytes) {
  const fs::path path = folder() / name;
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// An input of two parts: what stands before its first NUL, and what follows.
struct TwoParts {
  std::string first, second;
};
inline TwoParts two_parts(const uint8_t* data, size_t size) {
  const std::string_view all = text_of(data, size);
  const size_t nul = std::min(all.find('\0'), all.size());
  return {std::string(all.substr(0, nul)), std::string(all.substr(std::min(nul + 1, all.size())))};
}

// Runs `body`, which may fail with one of `refusals`. Always 0, what a target returns.
template <typename Body>
int accept(std::initializer_list<Fault> refusals, const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    if (std::find(refusals.begin(), refusals.end(), error.fault()) == refusals.end()) {
      std::fprintf(stderr, "an error of kind %d, which this reader may not give: %s\n", static_cast<int>(error.fault()),
                   error.what());
      std::abort();
    }
  }
  return 0;
}

// What must hold of everything that a reader takes.
inline void holds(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "what was read is not as it must be: %s\n", what);
  std::abort();
}

}  // namespace drover::fuzz
