// Bytes as people read them.
#pragma once
#include <cstdint>

namespace drover {

constexpr double mib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace drover
