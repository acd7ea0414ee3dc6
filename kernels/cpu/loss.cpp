// Softmax over a vocabulary seen in blocks, and its gradient. One thread a row.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

float row_max(const float* x, int64_t n) {
  Vec m = _mm256_set1_ps(kMinusInfinity);  // NaN is skipped here and comes back through the sum
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) m = _mm256_max_ps(load(x + i), m);
  float result = max(m);
  for (; i < n; ++i) result = std::max(result, x[i]);
  return result;
}

// Σ exp(x - m), in vectors summed every 4096 elements into a double. Asks meanwhile for the n numbers at `next`.
double row_sum_exp(const float* x, int64_t n, float m, const float* next) {
  const Vec shift = _mm256_set1_ps(m);
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += 4096) {
    const int64_t end = std::min(n, begin + 4096);
    Vec part = _mm256_setzero_ps();
    int64_t i = begin;
    for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
      _mm_prefetch(reinterpret_cast<const char*>(next + i), _MM_HINT_T1);
      part = _mm256_add_ps(part, exp(_mm256_sub_ps(load(x + i), shift)));
      part = _mm256_add_ps(part, exp(_mm256_sub_ps(load(x + i + kLanes), shift)));
    }
    for (; i + kLanes <= end; i += kLanes) part = _mm256_add_ps(part, exp(_mm256_sub_ps(load(x + i), shift)));
    float rest = sum(part);
    for (; i < end; ++i) rest += exp(x[i] - m);
    total += rest;
  }
  return total;
}

}  // namespace

void CpuBackend::do_start_statistics(Tensor statistics) {
  for (int64_t r = 0; r < statistics.rows; ++r) {
    float* s = statistics.as<float>() + r * statistics.pitch;
    s[0] = kMinusInfinity;
    s[1] = s[2] = 0;
  }
}

void CpuBackend::do_fold_statistics(Tensor logits, Tensor labels, int64_t begin, int64_t valid, Tensor statistics) {
  if (valid == 0) return;
#pragma omp parallel for num_threads(threads_) schedule(static)
  for (int64_t r = 0; r < logits.rows; ++r) {
    const float* l = logits.as<float>() + r * logits.pitch;
    float* s = statistics.as<float>() + r * statistics.pitch;
    const float m = std::max(s[0], row_max(l, valid));
    const double kept = s[1] == 0 ? 0 : s[1] * std::exp(static_cast<double>(s[0]) - m);
    s[1] = static_cast<float>(kept + row_sum_exp(l, valid, m, r + 1 < logits.rows ? l + logits.pitch : l));
    s[0] = m;
    const int64_t label = labels.as<int32_t>()[r] - begin;
    if (label >= 0 && label < valid) s[2] += l[label];
  }
}

void CpuBackend::do_merge_statistics(Tensor parts, Tensor lse, Tensor logprob) {
  const int64_t c = lse.rows, n = c == 0 ? 0 : parts.rows / c;
  const float* p = parts.as<float>();
  for (int64_t r = 0; r < c; ++r) {
    float m = kMinusInfinity, label = 0;
    for (int64_t k = 0; k < n; ++k) m = std::max(m, p[(k * c + r) * parts.pitch]);
    double total = 0;
    for (int64_t k = 0; k < n; ++k) {
      const float* s = p + (k * c + r) * parts.pitch;
      if (s[1] != 0) total += s[1] * std::exp(static_cast<double>(s[0]) - m);
      label += s[2];
    }
    const double log_sum = m + std::log(total);
    lse.as<float>()[r] = static_cast<float>(log_sum);
    logprob.as<float>()[r] = static_cast<float>(label - log_sum);
  }
}

void CpuBackend::do_cross_entropy_backward(Tensor logits, Tensor labels, int64_t begin, int64_t valid, Tensor lse,
                                           Tensor d) {
  with_type(d, [&](auto* out) {
#pragma omp parallel for num_threads(threads_) schedule(static)
    for (int64_t r = 0; r < logits.rows; ++r) {
      const float* l = logits.as<float>() + r * logits.pitch;
      auto* to = out + r * d.pitch;
      const float shift = lse.as<float>()[r];
      const Vec shifts = _mm256_set1_ps(shift);
      const int64_t label = labels.as<int32_t>()[r] - begin;
      // Taken before the row is written: d may be the logits.
      const float at_label = label >= 0 && label < valid ? exp(l[label] - shift) - 1.0f : 0.0f;
      map_row(
          valid, [&](Vec v) { return exp(_mm256_sub_ps(v, shifts)); }, to, l);
      for (int64_t i = valid; i < logits.cols; ++i) store_one(to + i, 0);
      if (label >= 0 && label < valid) store_one(to + label, at_label);
    }
  });
}

}  // namespace drover::cpu
