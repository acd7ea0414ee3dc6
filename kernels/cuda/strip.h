// The strip of a linear's low-rank terms beside its weight, its input and its output's gradient: the rank rounded up, so that the widened product's sum
// stays a whole number of 16-byte packs.
#pragma once
#include "kernels/backend.h"

namespace drover::cuda {

inline constexpr BackendTraits kTraits{.strip_multiple = 8, .rounds_partials = true};
constexpr int64_t low_rank_strip(int64_t rank) { return (rank + kTraits.strip_multiple - 1) / kTraits.strip_multiple * kTraits.strip_multiple; }

}  // namespace drover::cuda
