#include "model/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/base/error.h"
#include "kernels/base/philox.h"

namespace drover {

int32_t sample_token(std::span<const float> logits, const Sampling& s, uint64_t sequence, uint64_t index) {
  for (float v : logits) {
    if (!std::isfinite(v)) fail(Exit::non_finite, "the model's logits are not finite ({}): its weights or the adapter's hold such values, or overflow bf16 (try train.dtype=fp32)", v);
  }
  const auto top = std::max_element(logits.begin(), logits.end());
  if (s.greedy) return static_cast<int32_t>(top - logits.begin());

  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]; });
  std::vector<double> p(order.size());
  double sum = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    p[i] = std::exp((static_cast<double>(logits[static_cast<size_t>(order[i])]) - *top) / s.temperature);
    sum += p[i];
  }
  // The nucleus: the fewest most likely tokens whose mass reaches top_p; the one that crosses the line is in.
  size_t kept = 0;
  double mass = 0;
  while (kept < p.size() && (kept == 0 || mass < s.top_p * sum)) mass += p[kept++];
  const double target = philox_uniform(PhiloxKey::of(s.seed), index * 4, sequence) * mass;
  double reached = 0;
  for (size_t i = 0; i < kept; ++i) {
    reached += p[i];
    if (target < reached) return order[i];
  }
  return order[kept - 1];
}

}  // namespace drover
