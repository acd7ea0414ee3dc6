#include "model/generation/sampling.h"

#include "kernels/base/philox.h"

namespace drover {

SamplingRow row_of(const Sampling& s, const Draw& draw) {
  return {.temperature = s.greedy ? 0 : s.temperature,
          .top_p = s.top_p,
          .top_k = static_cast<float>(s.top_k),
          .min_p = s.min_p,
          .uniform = philox_uniform(PhiloxKey::of(s.seed), draw.index * 4, draw.sequence)};
}

std::map<int32_t, LogitChange> changes_of(const Sampling& s, std::span<const int32_t> prompt,
                                          std::span<const int32_t> answer) {
  std::map<int32_t, LogitChange> changes;
  for (const auto& [token, bias] : s.logit_bias) changes[token].bias += bias;
  if (s.repetition_penalty != 1) {
    for (const auto tokens : {prompt, answer}) {
      for (const int32_t token : tokens) changes[token].repetition = s.repetition_penalty;
    }
  }
  if (s.frequency_penalty == 0 && s.presence_penalty == 0) return changes;
  std::map<int32_t, int64_t> times;
  for (const int32_t token : answer) ++times[token];
  for (const auto& [token, n] : times) {
    changes[token].subtracted = s.presence_penalty + s.frequency_penalty * static_cast<float>(n);
  }
  return changes;
}

}  // namespace drover
