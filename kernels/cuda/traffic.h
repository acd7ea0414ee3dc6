// What crossed between host and device, for the test that a step moves its batch and the scalars of the log line, and
// no more.
#pragma once
#include <cstdint>

namespace drover::cuda {

struct Traffic {
  int64_t uploads = 0, uploaded_bytes = 0;
  int64_t downloads = 0, downloaded_bytes = 0;
  int64_t allocations = 0, allocated_bytes = 0;
};

}  // namespace drover::cuda
