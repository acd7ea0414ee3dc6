// The choice of the next token. One thread a row.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

namespace {

std::span<const float> row_of(Tensor logits, int64_t r) {
  return {logits.as<float>() + r * logits.pitch, static_cast<size_t>(logits.cols)};
}

constexpr size_t kVec = kLanes;

bool finite(std::span<const float> row) {
  Vec nothing = _mm256_setzero_ps();  // NaN where a number less itself is not 0
  size_t i = 0;
  for (; i + kVec <= row.size(); i += kVec) {
    const Vec v = load(row.data() + i);
    nothing = _mm256_add_ps(nothing, _mm256_sub_ps(v, v));
  }
  return sum(nothing) == 0 && std::ranges::all_of(row.subspan(i), [](float v) { return std::isfinite(v); });
}

// The first of the largest; the numbers are finite.
size_t largest(std::span<const float> row) {
  const size_t whole = row.size() / kVec * kVec;
  Vec highest = _mm256_set1_ps(row[0]);
  for (size_t i = 0; i < whole; i += kVec) highest = _mm256_max_ps(highest, load(row.data() + i));
  float most = cpu::max(highest);
  for (const float v : row.subspan(whole)) most = std::max(most, v);
  const Vec all = _mm256_set1_ps(most);
  for (size_t i = 0; i < whole; i += kVec) {
    const int equal = _mm256_movemask_ps(_mm256_cmp_ps(load(row.data() + i), all, _CMP_EQ_OQ));
    if (equal != 0) return i + static_cast<size_t>(std::countr_zero(static_cast<unsigned>(equal)));
  }
  return static_cast<size_t>(std::ranges::find(row.subspan(whole), most) - row.subspan(whole).begin()) + whole;
}

// The columns by falling logit, and by rising number among equals; sorted only as far as somebody looks.
class Order {
 public:
  explicit Order(std::span<const float> logits) : logits_(logits), columns_(logits.size()) {
    std::iota(columns_.begin(), columns_.end(), 0);
  }
  int32_t operator[](size_t i) {
    if (i >= sorted_) sort_beyond(i);
    return columns_[i];
  }

 private:
  void sort_beyond(size_t i) {
    const auto before = [&](int32_t a, int32_t b) {
      const float la = logits_[static_cast<size_t>(a)], lb = logits_[static_cast<size_t>(b)];
      return la != lb ? la > lb : a < b;
    };
    const size_t end = std::min(std::max(i + 1, std::max<size_t>(64, 8 * sorted_)), columns_.size());
    const auto first = columns_.begin() + static_cast<std::ptrdiff_t>(sorted_);
    const auto last = columns_.begin() + static_cast<std::ptrdiff_t>(end);
    if (last != columns_.end()) std::nth_element(first, last, columns_.end(), before);
    std::sort(first, last, before);
    sorted_ = end;
  }
  std::span<const float> logits_;
  std::vector<int32_t> columns_;
  size_t sorted_ = 0;  // so many are in place
};

int32_t drawn(std::span<const float> logits, const SamplingRow& how) {
  const float max = logits[largest(logits)];
  const auto mass_of = [&](float logit) { return std::exp((static_cast<double>(logit) - max) / how.temperature); };
  size_t kept = logits.size();
  if (how.min_p > 0) {
    kept = static_cast<size_t>(std::ranges::count_if(logits, [&](float l) { return mass_of(l) >= how.min_p; }));
  }
  if (how.top_k > 0) kept = std::min(kept, static_cast<size_t>(how.top_k));
  kept = std::max<size_t>(kept, 1);
  Order order(logits);
  const auto mass_at = [&](size_t place) { return mass_of(logits[static_cast<size_t>(order[place])]); };
  double mass = 0;
  if (kept == logits.size()) {
    for (const float logit : logits) mass += mass_of(logit);
  } else {
    for (size_t i = 0; i < kept; ++i) mass += mass_at(i);
  }
  if (how.top_p < 1) {
    const double line = how.top_p * mass;
    size_t nucleus = 0;  // the one that crosses the line is in
    mass = 0;
    while (nucleus < kept && (nucleus == 0 || mass < line)) mass += mass_at(nucleus++);
    kept = nucleus;
  }
  const double target = how.uniform * mass;
  double reached = 0;
  for (size_t i = 0; i + 1 < kept; ++i) {
    reached += mass_at(i);
    if (target < reached) return order[i];
  }
  return order[kept - 1];
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
      token = static_cast<int32_t>(largest(row));
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

void CpuBackend::do_allow(Tensor logits, Tensor rows, Tensor bits) {
#pragma omp parallel for num_threads(threads_) schedule(static)
  for (int64_t i = 0; i < bits.rows; ++i) {
    float* row = logits.as<float>() + rows.as<int32_t>()[i * rows.pitch] * logits.pitch;
    const int32_t* words = bits.as<int32_t>() + i * bits.pitch;
    for (int64_t v = 0; v < logits.cols; ++v) {
      const bool allowed = (static_cast<uint32_t>(words[v / kBitsPerWord]) >> (v % kBitsPerWord) & 1) != 0;
      if (!allowed && std::isfinite(row[v])) row[v] = kForbiddenLogit;
    }
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
    const double max = row[largest(row)];
    double sum = 0;
    for (const float logit : row) sum += std::exp(logit - max);
    const double log_sum = max + std::log(sum);
    const auto log_p = [&](int32_t column) { return static_cast<float>(row[static_cast<size_t>(column)] - log_sum); };
    value = log_p(tokens.as<int32_t>()[r * tokens.pitch]);
    if (top.cols == 0) continue;
    Order order(row);
    for (int64_t i = 0; i < top.cols; ++i) {
      ids[i] = order[static_cast<size_t>(i)];
      best[i] = log_p(ids[i]);
    }
  }
}

}  // namespace drover::cpu
