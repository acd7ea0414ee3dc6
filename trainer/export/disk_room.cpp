#include "trainer/export/disk_room.h"

#include "kernels/base/error.h"

namespace drover {

void check_room(const fs::path& target, int64_t bytes) {
  std::error_code unknown;
  const fs::path parent = target.has_parent_path() ? target.parent_path() : fs::path(".");
  const fs::space_info space = fs::space(parent, unknown);
  if (unknown || space.available >= static_cast<uintmax_t>(bytes)) return;
  fail(Fault::io, "{} needs {} bytes and its disk has {} free; nothing was written", target.string(), bytes,
       space.available);
}

}  // namespace drover
