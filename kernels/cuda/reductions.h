#pragma once
#include <cstdint>

namespace drover::cuda {

// Sums over long vectors: this many blocks each sum a fixed share into a partial sum, and one block adds the partial sums in order.
inline constexpr int64_t kSumBlocks = 1024;

}  // namespace drover::cuda
