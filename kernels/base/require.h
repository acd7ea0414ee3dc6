// An invariant of the program: a violation is a bug, Fault::internal. (Apart from error.h, so that device code can
// include it without fmt.)
#pragma once
#include <source_location>

namespace drover {

[[noreturn]] void broken_invariant(const char* what, std::source_location where);  // throws Error(Fault::internal)

inline void require(bool condition, const char* what, std::source_location where = std::source_location::current()) {
  if (!condition) broken_invariant(what, where);
}

}  // namespace drover
