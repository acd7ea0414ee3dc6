// How an answer's tokens are chosen: the likeliest, or drawn with a temperature from the nucleus (top-p) by a
// counter-based generator.
#pragma once
#include <cstdint>

#include "kernels/base/philox.h"

namespace drover {

struct Sampling {
  bool greedy = true;
  float temperature = 1;  // > 0
  float top_p = 1;        // in (0, 1]
  uint64_t seed = 42;
};

// Names a draw: the same seed, sequence and index give the same token for the same logits.
struct Draw {
  uint64_t sequence = 0, index = 0;
};

inline float uniform_of(const Sampling& sampling, const Draw& draw) {
  return philox_uniform(PhiloxKey::of(sampling.seed), draw.index * 4, draw.sequence);
}

}  // namespace drover
