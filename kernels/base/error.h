// The one exception type, and what kinds of faults there are.
// `fail` is for what a user can fix (what is wrong, where, what is allowed, what to do);
// `require` (require.h) is for our own invariants and names the line that broke.
#pragma once
#include <fmt/format.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "kernels/base/require.h"

namespace drover {

// What failed, in kinds that a caller can tell apart. launch/ gives each its exit code.
enum class Fault : uint8_t {
  usage,     // asked for in a way that cannot be done
  bad_data,  // data, a model or an adapter
  missing_input,
  internal,    // a bug of ours
  io,          // disk full, file vanished
  bad_recipe,  // or one that does not fit this machine
  rank_hangs,
  non_finite,
  corruption,  // what was written reads back otherwise
  rank_lost,
};

class Error : public std::runtime_error {
 public:
  Error(Fault fault, const std::string& message) : std::runtime_error(message), fault_(fault) {}
  Fault fault() const { return fault_; }

 private:
  Fault fault_;
};

template <typename... Args>
[[noreturn]] void fail(Fault fault, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fault, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace drover
