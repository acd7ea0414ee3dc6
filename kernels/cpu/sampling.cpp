// The choice of the next token. One thread a row.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/cpu/cpu_backend.h"

namespace drover::cpu {

namespace {

std::span<const float> row_of(Tensor logits, int64_t r) {
  return {logits.as<float>() + r * logits.pitch, static_cast<size_t>(logits.cols)};
}

bool finite(std::span<const float> row) {
  return std::ranges::all_of(row, [](float v) { return std::isfinite(v); });
}

// The columns by falling logit, of which the first `count` are in place.
std::vector<int32_t> order_of(std::span<const float> logits, size_t count) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](int32_t a, int32_t b) {
    const float la = logits[static_cast<size_t>(a)], lb = logits[static_cast<size_t>(b)];
    return la != lb ? la > lb : a < b;
  };
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(), before);
  return order;
}

int32_t drawn(std::span<const float> logits, const SamplingRow& how) {
  const float max = *std::ranges::max_element(logits);
  const auto mass_of = [&](float logit) { return std::exp((static_cast<double>(logit) - max) / how.temperature); };
  size_t kept = logits.size();
  if (how.min_p > 0) {
    kept = static_cast<size_t>(std::ranges::count_if(logits, [&](float l) { return mass_of(l) >= how.min_p; }));
  }
  if (how.top_k > 0) kept = std::min(kept, static_cast<size_t>(how.top_k));
  kept = std::max<size_t>(kept, 1);
  const std::vector<int32_t> order = order_of(logits, kept);
  std::vector<double> p(kept);
  double sum = 0;
  for (size_t i = 0; i < kept; ++i) {
    p[i] = mass_of(logits[static_cast<size_t>(order[i])]);
    sum += p[i];
  }
  size_t nucleus = 0;  // the one that crosses the line is in
  double mass = 0;
  while (nucleus < kept && (nucleus == 0 || mass < how.top_p * sum)) mass += p[nucleus++];
  const double target = how.uniform * mass;
  double reached = 0;
  for (size_t i = 0; i < nucleus; ++i) {
    reached += p[i];
    if (target < reached) return order[i];
  }
  return order[nucleus - 1];
}

}  // namespace

void CpuBackend::do_sample(Tensor logits, Tensor choices, Tensor tokens) {
#pragma omp parallel for num_threads(threads_) schedule(static)
  for (int64_t r = 0; r < logits.rows; ++r) {
    const std::span<const float> row = row_of(logits, r);
    const float* c = choices.as<float>() + r * choices.pitch;
    const SamplingRow how{c[0], c[1], c[2], c[3], c[4]};
    int32_t& token = tokens.as<int32_t>()[r];
    if (!finite(row)) {
      token = -1;
    } else if (how.temperature == 0) {
      token = static_cast<int32_t>(std::ranges::max_element(row) - row.begin());
    } else {
      token = drawn(row, how);
    }
  }
}

void CpuBackend::do_penalize(Tensor logits, Tensor places, Tensor changes) {
  for (int64_t i = 0; i < places.rows; ++i) {
    const int32_t* place = places.as<int32_t>() + i * places.pitch;
    const float* change = changes.as<float>() + i * changes.pitch;
    float& logit = logits.as<float>()[place[0] * logits.pitch + place[1]];
    const float biased = logit + change[0];
    logit = (biased > 0 ? biased / change[1] : biased * change[1]) - change[2];
  }
}

void CpuBackend::do_log_probabilities(Tensor logits, Tensor tokens, Tensor values, Tensor top, Tensor top_values) {
#pragma omp parallel for num_threads(threads_) schedule(static)
  for (int64_t r = 0; r < logits.rows; ++r) {
    const std::span<const float> row = row_of(logits, r);
    float& value = values.as<float>()[r * values.pitch];
    int32_t* ids = static_cast<int32_t*>(top.data) + r * top.pitch;  // an empty one has no dtype of its own
    float* best = static_cast<float*>(top_values.data) + r * top_values.pitch;
    if (!finite(row)) {
      value = std::numeric_limits<float>::quiet_NaN();
      std::fill_n(ids, top.cols, -1);
      std::fill_n(best, top.cols, value);
      continue;
    }
    const double max = *std::ranges::max_element(row);
    double sum = 0;
    for (const float logit : row) sum += std::exp(logit - max);
    const double log_sum = max + std::log(sum);
    const auto log_p = [&](int32_t column) { return static_cast<float>(row[static_cast<size_t>(column)] - log_sum); };
    value = log_p(tokens.as<int32_t>()[r * tokens.pitch]);
    const std::vector<int32_t> order = order_of(row, static_cast<size_t>(top.cols));
    for (int64_t i = 0; i < top.cols; ++i) {
      ids[i] = order[static_cast<size_t>(i)];
      best[i] = log_p(ids[i]);
    }
  }
}

}  // namespace drover::cpu
