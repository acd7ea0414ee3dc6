// Attention in tiles of 64 queries × 64 keys with an online softmax in fp32 (Dao 2023, FlashAttention-2). A task of the
// forward is (segment, kv head, query tile): a widened key tile serves every query head of its group.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/tile.h"

namespace drover::cpu {

namespace {

struct Task {
  const Segment* segment;
  int64_t kv_head, q_begin, k_end;
};

int64_t key_row(const Segment& s, const KvView& kv, int64_t position) {
  if (s.block_table == nullptr) return s.k0 + position;
  return s.block_table[position / kv.block_size] * kv.block_size + position % kv.block_size;
}

// Turns the first n scores of a row into exp(score - max), the rest of the tile into zeros; returns their sum and
// raises the running maximum.
float exponentiate(float* p, int64_t n, float& highest) {
  std::fill(p + n, p + padded(n), kMinusInfinity);
  Vec most = _mm256_set1_ps(highest);
  for (int64_t j = 0; j < n; j += kLanes) most = _mm256_max_ps(load(p + j), most);
  highest = max(most);
  const Vec shift = _mm256_set1_ps(highest);
  Vec total = _mm256_setzero_ps();
  for (int64_t j = 0; j < n; j += kLanes) {
    const Vec w = exp(_mm256_sub_ps(load(p + j), shift));
    store(p + j, w);
    total = _mm256_add_ps(total, w);
  }
  std::fill(p + padded(n), p + kTile, 0.0f);
  return sum(total);
}

void scale_row(float* a, int64_t n, float factor) {
  const Vec f = _mm256_set1_ps(factor);
  for (int64_t j = 0; j < n; j += kLanes) store(a + j, _mm256_mul_ps(load(a + j), f));
}

template <typename T>
void forward_task(const Task& task, Tensor q, const KvView& kv, const AttentionShape& shape, Tensor o, Tensor lse) {
  const Segment& s = *task.segment;
  const int64_t e = shape.head_dim, ld = padded(e), group = shape.heads / shape.kv_heads,
                first_head = task.kv_head * group;
  const int64_t qn = std::min(kTile, s.nq - task.q_begin);  // row g·qn + i is query i of head g
  const int64_t heads_at_once = std::min(kTile / qn, group);
  TileBuffers buffers(
      {group * qn * ld, group * qn * ld, kTile * ld, ld * kTile, kTile * ld, kTile * kTile, group * qn, group * qn});
  float *qs = buffers[0], *acc = buffers[1], *ks = buffers[2], *kt = buffers[3], *vs = buffers[4], *scores = buffers[5],
        *highest = buffers[6], *total = buffers[7];
  for (int64_t g = 0; g < group; ++g) {
    load_tile(q.as<T>(), q.pitch, (first_head + g) * e, qn, e, ld, shape.scale, qs + g * qn * ld,
              [&](int64_t i) { return s.q0 + task.q_begin + i; });
  }
  std::fill_n(acc, group * qn * ld, 0.0f);
  std::fill_n(highest, group * qn, kMinusInfinity);
  std::fill_n(total, group * qn, 0.0f);

  for (int64_t k0 = 0; k0 < task.k_end; k0 += kTile) {
    const int64_t kn = std::min(kTile, task.k_end - k0);
    const auto row = [&](int64_t j) { return key_row(s, kv, k0 + j); };
    load_tile(kv.k.as<T>(), kv.k.pitch, task.kv_head * e, kn, e, ld, 1.0f, ks, row);
    load_tile(kv.v.as<T>(), kv.v.pitch, task.kv_head * e, kn, e, ld, 1.0f, vs, row);
    transpose_tile(ks, kn, ld, kt);
    for (int64_t g = 0; g < group; g += heads_at_once) {
      const int64_t begin = g * qn, rows = std::min(heads_at_once, group - g) * qn;
      std::fill_n(scores, rows * kTile, 0.0f);
      tile_product(rows, padded(kn), e, {qs + begin * ld, ld, 1}, kt, kTile, scores, kTile);
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t at = begin + i, n = visible(s, task.q_begin + i % qn, k0, kn);
        if (n == 0) {
          std::fill_n(scores + i * kTile, kTile, 0.0f);
          continue;
        }
        const float before = highest[at], added = exponentiate(scores + i * kTile, n, highest[at]);
        const float keep = before == kMinusInfinity ? 0.0f : exp(before - highest[at]);
        total[at] = total[at] * keep + added;
        if (keep != 1.0f) scale_row(acc + at * ld, ld, keep);
      }
      tile_product(rows, ld, kn, {scores, kTile, 1}, vs, ld, acc + begin * ld, ld);
    }
  }
  for (int64_t g = 0; g < group; ++g) {
    for (int64_t i = 0; i < qn; ++i) {
      const int64_t at = s.q0 + task.q_begin + i;
      const float l = total[g * qn + i];  // 0 where nothing was seen; NaN passes through
      const Vec factor = _mm256_set1_ps(l != 0 ? 1.0f / l : 0.0f);
      map_row(
          e, [&](Vec v) { return _mm256_mul_ps(v, factor); }, o.as<T>() + at * o.pitch + (first_head + g) * e,
          acc + (g * qn + i) * ld);
      lse.as<float>()[at * lse.pitch + first_head + g] = l != 0 ? highest[g * qn + i] + std::log(l) : kMinusInfinity;
    }
  }
}

}  // namespace

void CpuBackend::do_attention(Tensor q, const KvView& kv, std::span<const Segment> segments,
                              const AttentionShape& shape, Tensor o, Tensor lse) {
  require(kv.k.dtype == q.dtype && kv.v.dtype == q.dtype && o.dtype == q.dtype, "attention's tensors are of one dtype");
  std::vector<Task> tasks;
  for (const Segment& s : segments) {
    for (int64_t begin = 0; begin < s.nq; begin += kTile) {
      const int64_t k_end = std::clamp<int64_t>(std::min(begin + kTile, s.nq) + s.offset, 0, s.nk);
      for (int64_t head = 0; head < shape.kv_heads; ++head) tasks.push_back({&s, head, begin, k_end});
    }
  }
  // The longest first, so that no thread is left with one at the end.
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) { return a.k_end > b.k_end; });
  with_type(q, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
#pragma omp parallel for num_threads(threads_) schedule(dynamic)
    for (size_t i = 0; i < tasks.size(); ++i) forward_task<T>(tasks[i], q, kv, shape, o, lse);
  });
}

}  // namespace drover::cpu
