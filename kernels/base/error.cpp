#include "kernels/base/error.h"

namespace drover {

void broken_invariant(const char* what, std::source_location where) {
  throw Error(Fault::internal, fmt::format("internal error: {} ({}:{})", what, where.file_name(), where.line()));
}

}  // namespace drover
