// How an answer's tokens are chosen: the likeliest, or drawn with a temperature from those that top-k, min-p and the
// nucleus (top-p) leave, by a counter-based generator.
#pragma once
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/base/philox.h"

namespace drover {

struct Sampling {
  bool greedy = true;
  float temperature = 1;  // > 0
  float top_p = 1;        // in (0, 1]
  int32_t top_k = 0;      // 0: all
  float min_p = 0;        // in [0, 1], of the likeliest one's probability
  uint64_t seed = 42;
};

// Names a draw: the same seed, sequence and index give the same token for the same logits.
struct Draw {
  uint64_t sequence = 0, index = 0;
};

inline SamplingRow row_of(const Sampling& s, const Draw& draw) {
  return {.temperature = s.greedy ? 0 : s.temperature,
          .top_p = s.top_p,
          .top_k = static_cast<float>(s.top_k),
          .min_p = s.min_p,
          .uniform = philox_uniform(PhiloxKey::of(s.seed), draw.index * 4, draw.sequence)};
}

}  // namespace drover
