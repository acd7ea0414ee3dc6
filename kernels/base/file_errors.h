// What is said of files that cannot be read or written: path, reason and, on a full disk, how much is free.
#pragma once
#include "kernels/base/file.h"

namespace drover {

// missing_input where it is not there, else io.
[[noreturn]] void fail_to_read(const char* what, const fs::path& path, int reason);
[[noreturn]] void fail_to_write(const char* what, const fs::path& path, int reason, size_t needed_bytes = 0);
// io where not everything can be written.
void write_all(int descriptor, const char* from, size_t bytes, const fs::path& path);

}  // namespace drover
