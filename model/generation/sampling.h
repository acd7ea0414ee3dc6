// How an answer's tokens are chosen: the likeliest, or drawn with a temperature from those that top-k, min-p and the
// nucleus (top-p) leave, by a counter-based generator; before that, penalties for tokens that were there already.
#pragma once
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace drover {

struct Sampling {
  bool greedy = true;
  float temperature = 1;  // > 0
  float top_p = 1;        // in (0, 1]
  int32_t top_k = 0;      // 0: all
  float min_p = 0;        // in [0, 1], of the likeliest one's probability
  uint64_t seed = 42;
  // Of tokens of the prompt and the answer: logits above 0 are divided by it, others multiplied; > 0. Source: Keskar et
  // al. 2019 (CTRL).
  float repetition_penalty = 1;
  // Of tokens of the answer: subtracted once for each time, and once for all. As in OpenAI's API.
  float frequency_penalty = 0, presence_penalty = 0;
  struct Bias {
    int32_t token;
    float bias;
  };
  std::vector<Bias> logit_bias;  // added to a token's logit; a token once
  // How many of the likeliest tokens come with the chosen one's log-probability; without it there is none.
  std::optional<int64_t> logprobs;

  bool penalizes() const {
    return repetition_penalty != 1 || frequency_penalty != 0 || presence_penalty != 0 || !logit_bias.empty();
  }
};

// Names a draw: the same seed, sequence and index give the same token for the same logits.
struct Draw {
  uint64_t sequence = 0, index = 0;
};

// What was chosen. Log-probabilities are the model's: of the logits before penalties, temperature and limits.
struct Chosen {
  static constexpr int32_t kNotFinite = -1;
  struct Likely {
    int32_t id;
    float logprob;
    bool operator==(const Likely&) const = default;
  };
  int32_t id;                                               // kNotFinite where a logit is not finite
  float logprob = std::numeric_limits<float>::quiet_NaN();  // where Sampling::logprobs is set
  std::vector<Likely> top = {};                             // the likeliest first
};

SamplingRow row_of(const Sampling& sampling, const Draw& draw);

// How a token's logit changes: l' = l + bias, divided by (above 0) or multiplied with the repetition penalty, minus
// `subtracted`.
struct LogitChange {
  float bias = 0, repetition = 1, subtracted = 0;
};
std::map<int32_t, LogitChange> changes_of(const Sampling& sampling, std::span<const int32_t> prompt,
                                          std::span<const int32_t> answer);

}  // namespace drover
