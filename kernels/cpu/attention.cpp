// Attention in tiles of 64 queries × 64 keys with an online softmax in fp32 (Dao 2023, FlashAttention-2), grouped queries sharing their key tiles.
// Forward: a task is (segment, kv head, query tile). Backward: a task is (segment, kv head), so that dk and dv are summed by one thread in one order.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/tile.h"

namespace drover::cpu {

namespace {

constexpr int64_t kTile = 64;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

struct Task {
  const Segment* segment;
  int64_t kv_head, q_begin;
};

int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

int64_t key_row(const Segment& s, const KvView& kv, int64_t position) {
  if (s.block_table == nullptr) return s.k0 + position;
  return s.block_table[position / kv.block_size] * kv.block_size + position % kv.block_size;
}

// to[i·ld + j] = factor·head[row(i), j] for `rows` rows of E columns, zero-padded to ld columns.
template <typename T, typename Row>
void load_tile(const T* data, int64_t pitch, int64_t column, int64_t rows, int64_t e, int64_t ld, float factor, float* to, Row&& row) {
  const Vec f = _mm256_set1_ps(factor);
  for (int64_t i = 0; i < rows; ++i) {
    float* out = to + i * ld;
    map_row(e, [&](Vec v) { return _mm256_mul_ps(v, f); }, out, data + row(i) * pitch + column);
    for (int64_t j = e; j < ld; ++j) out[j] = 0;
  }
}

// to (e × 64) = fromᵀ, columns at and beyond `rows` zero.
void transpose_tile(const float* from, int64_t rows, int64_t e, int64_t ld, float* to) {
  for (int64_t j = 0; j < e; ++j) {
    for (int64_t i = 0; i < rows; ++i) to[j * kTile + i] = from[i * ld + j];
    for (int64_t i = rows; i < kTile; ++i) to[j * kTile + i] = 0;
  }
}

// The scratch of one thread; grows to what it needs and stays.
float* buffer(size_t which, int64_t floats) {
  thread_local std::vector<float> buffers[16];
  std::vector<float>& b = buffers[which];
  if (static_cast<int64_t>(b.size()) < floats) b.resize(static_cast<size_t>(floats));
  return b.data();
}

// The columns of a key tile that query i sees: j <= i + offset, within the tile.
int64_t visible(const Segment& s, int64_t query, int64_t k_begin, int64_t k_count) { return std::clamp<int64_t>(query + s.offset - k_begin + 1, 0, k_count); }

template <typename T>
void forward_task(const Task& task, Tensor q, const KvView& kv, const AttentionShape& shape, Tensor o, Tensor lse) {
  const Segment& s = *task.segment;
  const int64_t e = shape.head_dim, ld = padded(e), group = shape.heads / shape.kv_heads, first_head = task.kv_head * group;
  const int64_t qn = std::min(kTile, s.nq - task.q_begin);
  float *qs = buffer(0, group * kTile * ld), *acc = buffer(1, group * kTile * ld), *ks = buffer(2, kTile * ld), *kt = buffer(3, ld * kTile),
        *vs = buffer(4, kTile * ld), *scores = buffer(5, kTile * kTile), *highest = buffer(6, group * kTile), *total = buffer(7, group * kTile);
  for (int64_t g = 0; g < group; ++g) {
    load_tile(q.as<T>(), q.pitch, (first_head + g) * e, qn, e, ld, shape.scale, qs + g * kTile * ld, [&](int64_t i) { return s.q0 + task.q_begin + i; });
  }
  std::fill_n(acc, group * kTile * ld, 0.0f);
  std::fill_n(highest, group * kTile, kMinusInfinity);
  std::fill_n(total, group * kTile, 0.0f);

  const int64_t k_end = std::clamp<int64_t>(task.q_begin + qn + s.offset, 0, s.nk);
  for (int64_t k0 = 0; k0 < k_end; k0 += kTile) {
    const int64_t kn = std::min(kTile, k_end - k0);
    const auto row = [&](int64_t j) { return key_row(s, kv, k0 + j); };
    load_tile(kv.k.as<T>(), kv.k.pitch, task.kv_head * e, kn, e, ld, 1.0f, ks, row);
    load_tile(kv.v.as<T>(), kv.v.pitch, task.kv_head * e, kn, e, ld, 1.0f, vs, row);
    transpose_tile(ks, kn, e, ld, kt);
    for (int64_t g = 0; g < group; ++g) {
      std::fill_n(scores, qn * kTile, 0.0f);
      tile_product(qn, kTile, e, {qs + g * kTile * ld, ld, 1}, kt, kTile, scores, kTile);
      for (int64_t i = 0; i < qn; ++i) {
        float* p = scores + i * kTile;
        const int64_t n = visible(s, task.q_begin + i, k0, kn);
        std::fill(p + n, p + kTile, kMinusInfinity);
        float &m = highest[g * kTile + i], &l = total[g * kTile + i];
        const float now = std::max(m, *std::max_element(p, p + kTile));
        if (now == kMinusInfinity) {
          std::fill_n(p, kTile, 0.0f);
          continue;
        }
        const Vec shift = _mm256_set1_ps(now);
        Vec row_sum = _mm256_setzero_ps();
        for (int64_t j = 0; j < kTile; j += kLanes) {
          const Vec w = exp(_mm256_sub_ps(load(p + j), shift));
          store(p + j, w);
          row_sum = _mm256_add_ps(row_sum, w);
        }
        const float keep = m == kMinusInfinity ? 0.0f : exp(m - now);
        l = l * keep + sum(row_sum);
        m = now;
        if (keep != 1.0f) {
          float* a = acc + (g * kTile + i) * ld;
          const Vec factor = _mm256_set1_ps(keep);
          for (int64_t j = 0; j < ld; j += kLanes) store(a + j, _mm256_mul_ps(load(a + j), factor));
        }
      }
      tile_product(qn, ld, kn, {scores, kTile, 1}, vs, ld, acc + g * kTile * ld, ld);
    }
  }
  for (int64_t g = 0; g < group; ++g) {
    for (int64_t i = 0; i < qn; ++i) {
      const int64_t at = s.q0 + task.q_begin + i;
      const float l = total[g * kTile + i];
      const Vec factor = _mm256_set1_ps(l > 0 ? 1.0f / l : 0.0f);
      map_row(e, [&](Vec v) { return _mm256_mul_ps(v, factor); }, o.as<T>() + at * o.pitch + (first_head + g) * e, acc + (g * kTile + i) * ld);
      lse.as<float>()[at * lse.pitch + first_head + g] = l > 0 ? highest[g * kTile + i] + std::log(l) : kMinusInfinity;
    }
  }
}

struct BackwardTensors {
  Tensor q, o, lse, d_o, dq, dk, dv;
};

template <typename T>
void backward_task(const Segment& s, int64_t kv_head, const KvView& kv, const AttentionShape& shape, const BackwardTensors& t) {
  const int64_t e = shape.head_dim, ld = padded(e), group = shape.heads / shape.kv_heads, first_head = kv_head * group;
  float *dqs = buffer(0, group * s.nq * ld), *dks = buffer(1, kTile * ld), *dvs = buffer(2, kTile * ld), *ks = buffer(3, kTile * ld),
        *kt = buffer(4, ld * kTile), *vs = buffer(5, kTile * ld), *vt = buffer(6, ld * kTile), *qs = buffer(7, kTile * ld),
        *dos = buffer(8, kTile * ld), *p = buffer(9, kTile * kTile), *ds = buffer(10, kTile * kTile), *delta = buffer(11, group * s.nq);
  std::fill_n(dqs, group * s.nq * ld, 0.0f);
  for (int64_t g = 0; g < group; ++g) {  // delta[i] = Σ_j dO[i,j]·O[i,j]
    for (int64_t i = 0; i < s.nq; ++i) {
      const T* a = t.d_o.as<T>() + (s.q0 + i) * t.d_o.pitch + (first_head + g) * e;
      const T* b = t.o.as<T>() + (s.q0 + i) * t.o.pitch + (first_head + g) * e;
      float total = 0;
      for (int64_t j = 0; j < e; ++j) total += load_one(a + j) * load_one(b + j);
      delta[g * s.nq + i] = total;
    }
  }
  for (int64_t k0 = 0; k0 < s.nk; k0 += kTile) {
    const int64_t kn = std::min(kTile, s.nk - k0);
    const auto key = [&](int64_t j) { return s.k0 + k0 + j; };
    load_tile(kv.k.as<T>(), kv.k.pitch, kv_head * e, kn, e, ld, 1.0f, ks, key);
    load_tile(kv.v.as<T>(), kv.v.pitch, kv_head * e, kn, e, ld, 1.0f, vs, key);
    transpose_tile(ks, kn, e, ld, kt);
    transpose_tile(vs, kn, e, ld, vt);
    std::fill_n(dks, kTile * ld, 0.0f);
    std::fill_n(dvs, kTile * ld, 0.0f);
    const int64_t first_query = std::max<int64_t>(0, k0 - s.offset) / kTile * kTile;
    for (int64_t g = 0; g < group; ++g) {
      for (int64_t q0 = first_query; q0 < s.nq; q0 += kTile) {
        const int64_t qn = std::min(kTile, s.nq - q0);
        const auto query = [&](int64_t i) { return s.q0 + q0 + i; };
        load_tile(t.q.as<T>(), t.q.pitch, (first_head + g) * e, qn, e, ld, shape.scale, qs, query);
        load_tile(t.d_o.as<T>(), t.d_o.pitch, (first_head + g) * e, qn, e, ld, 1.0f, dos, query);
        std::fill_n(p, qn * kTile, 0.0f);
        std::fill_n(ds, qn * kTile, 0.0f);
        tile_product(qn, kTile, e, {qs, ld, 1}, kt, kTile, p, kTile);
        tile_product(qn, kTile, e, {dos, ld, 1}, vt, kTile, ds, kTile);
        for (int64_t i = 0; i < qn; ++i) {
          float *pr = p + i * kTile, *dr = ds + i * kTile;
          const int64_t n = visible(s, q0 + i, k0, kn);
          const Vec shift = _mm256_set1_ps(t.lse.as<float>()[(s.q0 + q0 + i) * t.lse.pitch + first_head + g]);
          const Vec d = _mm256_set1_ps(delta[g * s.nq + q0 + i]);
          for (int64_t j = 0; j < kTile; j += kLanes) {
            const Vec w = exp(_mm256_sub_ps(load(pr + j), shift));
            store(pr + j, w);
            store(dr + j, _mm256_mul_ps(w, _mm256_sub_ps(load(dr + j), d)));
          }
          std::fill(pr + n, pr + kTile, 0.0f);
          std::fill(dr + n, dr + kTile, 0.0f);
        }
        tile_product(kn, ld, qn, {p, 1, kTile}, dos, ld, dvs, ld);
        tile_product(kn, ld, qn, {ds, 1, kTile}, qs, ld, dks, ld);
        tile_product(qn, ld, kn, {ds, kTile, 1}, ks, ld, dqs + (g * s.nq + q0) * ld, ld);
      }
    }
    for (int64_t j = 0; j < kn; ++j) {
      const auto same = [](Vec v) { return v; };
      map_row(e, same, t.dk.as<T>() + key(j) * t.dk.pitch + kv_head * e, dks + j * ld);
      map_row(e, same, t.dv.as<T>() + key(j) * t.dv.pitch + kv_head * e, dvs + j * ld);
    }
  }
  const Vec factor = _mm256_set1_ps(shape.scale);
  for (int64_t g = 0; g < group; ++g) {
    for (int64_t i = 0; i < s.nq; ++i) {
      map_row(e, [&](Vec v) { return _mm256_mul_ps(v, factor); }, t.dq.as<T>() + (s.q0 + i) * t.dq.pitch + (first_head + g) * e, dqs + (g * s.nq + i) * ld);
    }
  }
}

}  // namespace

void CpuBackend::attention(Tensor q, const KvView& kv, std::span<const Segment> segments, const AttentionShape& shape, Tensor o, Tensor lse) {
  std::vector<Task> tasks;
  for (const Segment& s : segments) {
    for (int64_t begin = 0; begin < s.nq; begin += kTile) {
      for (int64_t head = 0; head < shape.kv_heads; ++head) tasks.push_back({&s, head, begin});
    }
  }
  with_type(q, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
#pragma omp parallel for num_threads(threads_) schedule(dynamic)
    for (size_t i = 0; i < tasks.size(); ++i) forward_task<T>(tasks[i], q, kv, shape, o, lse);
  });
}

void CpuBackend::attention_backward(Tensor q, const KvView& kv, std::span<const Segment> segments, const AttentionShape& shape, Tensor o, Tensor lse,
                                    Tensor d_o, Tensor dq, Tensor dk, Tensor dv) {
  const BackwardTensors tensors{q, o, lse, d_o, dq, dk, dv};
  const int64_t tasks = static_cast<int64_t>(segments.size()) * shape.kv_heads;
  with_type(q, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
#pragma omp parallel for num_threads(threads_) schedule(dynamic)
    for (int64_t i = 0; i < tasks; ++i) {
      backward_task<T>(segments[static_cast<size_t>(i / shape.kv_heads)], i % shape.kv_heads, kv, shape, tensors);
    }
  });
}

}  // namespace drover::cpu
