// The choice of the next token. One thread a row.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/cpu/cpu_backend.h"

namespace drover::cpu {

namespace {

int32_t drawn(std::span<const float> logits, float max, float temperature, float top_p, float uniform) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]; });
  std::vector<double> p(order.size());
  double sum = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    p[i] = std::exp((static_cast<double>(logits[static_cast<size_t>(order[i])]) - max) / temperature);
    sum += p[i];
  }
  size_t kept = 0;  // the one that crosses the line is in
  double mass = 0;
  while (kept < p.size() && (kept == 0 || mass < top_p * sum)) mass += p[kept++];
  const double target = uniform * mass;
  double reached = 0;
  for (size_t i = 0; i < kept; ++i) {
    reached += p[i];
    if (target < reached) return order[i];
  }
  return order[kept - 1];
}

}  // namespace

void CpuBackend::sample(Tensor logits, float temperature, float top_p, Tensor uniform, Tensor tokens) {
#pragma omp parallel for num_threads(threads_) schedule(static)
  for (int64_t r = 0; r < logits.rows; ++r) {
    const std::span<const float> row(logits.as<float>() + r * logits.pitch, static_cast<size_t>(logits.cols));
    int32_t& token = tokens.as<int32_t>()[r];
    if (!std::all_of(row.begin(), row.end(), [](float v) { return std::isfinite(v); })) {
      token = -1;
      continue;
    }
    const auto top = std::max_element(row.begin(), row.end());
    token = uniform.empty() ? static_cast<int32_t>(top - row.begin()) : drawn(row, *top, temperature, top_p, uniform.as<float>()[r]);
  }
}

}  // namespace drover::cpu
