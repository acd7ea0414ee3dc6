// The strip of a linear's low-rank terms beside its weight, its input and its output's gradient: the rank rounded up to the depth of cuBLASLt's tiles,
// which it would take anyway, so that the rows of what is widened still begin on 128-byte boundaries.
#pragma once
#include "kernels/backend.h"

namespace drover::cuda {

inline constexpr BackendTraits kTraits{.strip_multiple = 64, .rounds_partials = true};
constexpr int64_t low_rank_strip(int64_t rank) { return (rank + kTraits.strip_multiple - 1) / kTraits.strip_multiple * kTraits.strip_multiple; }

}  // namespace drover::cuda
