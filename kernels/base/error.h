// The one exception type and the exit codes that scripts rely on.
// `fail` is for what a user can mend (what is wrong, where, what is allowed, what to do);
// `require` (require.h) is for our own invariants and names the line that broke.
#pragma once
#include <fmt/format.h>

#include <stdexcept>
#include <string>

#include "kernels/base/require.h"

namespace drover {

enum class Exit : int {
  done = 0,
  usage = 64,
  bad_data = 65,       // bad data or model
  missing_input = 66,
  internal = 70,
  io = 74,             // I/O, disk full, file vanished
  preempted = 75,      // checkpoint saved
  bad_recipe = 78,
  hang = 80,
  non_finite = 81,
  corruption = 82,
  peer_lost = 83,
  interrupted = 130,   // checkpoint saved
};

class Error : public std::runtime_error {
 public:
  Error(Exit code, const std::string& message) : std::runtime_error(message), code_(code) {}
  Exit code() const { return code_; }

 private:
  Exit code_;
};

template <typename... Args>
[[noreturn]] void fail(Exit code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace drover
