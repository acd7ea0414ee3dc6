// From logits to a token: greedy, or temperature with nucleus (top-p) sampling drawn by a counter-based generator.
#pragma once
#include <cstdint>
#include <span>

namespace drover {

struct Sampling {
  bool greedy = true;
  float temperature = 1;  // > 0
  float top_p = 1;        // in (0, 1]
  uint64_t seed = 42;
};

// 81 where a logit is not finite. Ties go to the lower id. `sequence` and `index` name the draw: the same seed, sequence and index give the same token for the same logits.
int32_t sample_token(std::span<const float> logits, const Sampling& sampling, uint64_t sequence, uint64_t index);

}  // namespace drover
