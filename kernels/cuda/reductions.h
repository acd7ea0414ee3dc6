#pragma once
#include <cstdint>

namespace drover::cuda {

// Sums over long vectors: this many blocks each sum a fixed share into a partial sum, and the last one to end adds the
// partial sums in order. A Hopper GPU's 132 multiprocessors run them all at once, so that they end together.
inline constexpr int64_t kSumBlocks = 4 * 132;

struct PartialSums {
  double of_block[kSumBlocks];
  unsigned ended;  // blocks of the kernel that runs; 0 between kernels
};

}  // namespace drover::cuda
