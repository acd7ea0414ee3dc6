// The strip of a linear's low-rank terms beside its weight, its input and its output's gradient: the rank rounded up, so that the widened product's sum
// stays a whole number of 16-byte packs.
#pragma once
#include <cstdint>

namespace drover::cuda {

inline constexpr int64_t kStripMultiple = 8;
constexpr int64_t low_rank_strip(int64_t rank) { return (rank + kStripMultiple - 1) / kStripMultiple * kStripMultiple; }

}  // namespace drover::cuda
