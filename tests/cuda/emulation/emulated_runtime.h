#pragma once
#include <cstdint>

namespace drover::cuda::emulation {

inline int64_t waits = 0;  // calls that would wait for a device that is behind

}  // namespace drover::cuda::emulation
