// Rotary position embeddings' table (Su et al. 2021): cos and sin of position·inverse frequency, with Llama 3's
// scaling.
#pragma once
#include <vector>

#include "model/config.h"

namespace drover {

// (positions, E/2) row-major, fp32 as transformers computes them.
struct RopeValues {
  std::vector<float> cosine, sine;
};
RopeValues rope_values(const ModelConfig& config, int64_t positions);

}  // namespace drover
