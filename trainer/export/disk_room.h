// Whether a disk has the room for what is to be written. Early, as a model of a hundred gigabytes takes its time; the
// room may still be gone later.
#pragma once
#include "kernels/base/file.h"

namespace drover {

// io where the disk that `target` is to be on has fewer free bytes; a disk that does not say counts as large enough.
void check_room(const fs::path& target, int64_t bytes);

}  // namespace drover
