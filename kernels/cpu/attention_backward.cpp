// Attention's gradients in tiles, p recomputed from lse:
//   ds = p∘(dO·Vᵀ - delta),  dq = scale·ds·K,  dk = scale·dsᵀ·Q,  dv = pᵀ·dO,  delta = Σ dO∘O.
// dk and dv of a key tile are summed by one thread in one order, and so is dq of a query tile. Short segments go in one
// pass, a task a (segment, kv head); long ones, whose dq would not fit a thread's scratch, and few ones in two passes
// over (key tiles) and (query tiles). Bits agree.
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/tile.h"

namespace drover::cpu {

namespace {

template <typename T>
class Backward {
 public:
  Backward(const AttentionShape& shape, const Segment& segment, int64_t kv_head, Tensor q, const KvView& kv, Tensor o,
           Tensor lse, Tensor d_o)
      : shape_(shape),
        s_(segment),
        kv_head_(kv_head),
        q_(q),
        kv_(kv),
        o_(o),
        lse_(lse),
        d_o_(d_o),
        e_(shape.head_dim),
        ld_(padded(e_)),
        group_(shape.heads / shape.kv_heads) {}

  void one_pass(Tensor dq, Tensor dk, Tensor dv) {
    const Tiles t(ld_, group_ * s_.nq * ld_);
    std::fill_n(t.dq, group_ * s_.nq * ld_, 0.0f);
    for (int64_t k0 = 0; k0 < s_.nk; k0 += kTile) key_tile<true>(t, k0, dk, dv);
    for (int64_t g = 0; g < group_; ++g)
      write(t.dq + g * s_.nq * ld_, s_.nq, s_.q0, kv_head_ * group_ + g, shape_.scale, dq);
  }
  void keys_only(int64_t k0, Tensor dk, Tensor dv) { key_tile<false>(Tiles(ld_, 0), k0, dk, dv); }
  void queries_only(int64_t q0, Tensor dq) {
    const int64_t qn = std::min(kTile, s_.nq - q0);
    const Tiles t(ld_, group_ * kTile * ld_);
    std::fill_n(t.dq, group_ * kTile * ld_, 0.0f);
    for (int64_t k0 = 0; k0 < std::min(s_.nk, q0 + qn + s_.offset); k0 += kTile) {
      const int64_t kn = std::min(kTile, s_.nk - k0);
      load_keys(t, k0, kn);
      for (int64_t g = 0; g < group_; ++g) {
        load_queries(t, g, q0, qn);
        weights(t, g, q0, qn, k0, kn);
        tile_product(qn, ld_, kn, {t.ds, kTile, 1}, t.k, ld_, t.dq + g * kTile * ld_, ld_);
      }
    }
    for (int64_t g = 0; g < group_; ++g)
      write(t.dq + g * kTile * ld_, qn, s_.q0 + q0, kv_head_ * group_ + g, shape_.scale, dq);
  }

 private:
  struct Tiles {
    Tiles(int64_t ld, int64_t dq_floats)
        : buffers({kTile * ld, kTile * ld, kTile * ld, kTile * ld, kTile * ld, kTile * ld, kTile * ld, kTile * ld,
                   kTile * ld, kTile * kTile, kTile * kTile, kTile, dq_floats}) {}
    TileBuffers buffers;
    float *k = buffers[0], *v = buffers[1], *k_transposed = buffers[2], *v_transposed = buffers[3], *q = buffers[4],
          *d_o = buffers[5], *o = buffers[6], *dk = buffers[7], *dv = buffers[8], *p = buffers[9], *ds = buffers[10],
          *delta = buffers[11], *dq = buffers[12];
  };

  template <bool with_dq>
  void key_tile(const Tiles& t, int64_t k0, Tensor dk, Tensor dv) {
    const int64_t kn = std::min(kTile, s_.nk - k0);
    load_keys(t, k0, kn);
    std::fill_n(t.dk, kTile * ld_, 0.0f);
    std::fill_n(t.dv, kTile * ld_, 0.0f);
    const int64_t first_query = std::max<int64_t>(0, k0 - s_.offset) / kTile * kTile;
    for (int64_t g = 0; g < group_; ++g) {
      for (int64_t q0 = first_query; q0 < s_.nq; q0 += kTile) {
        const int64_t qn = std::min(kTile, s_.nq - q0);
        load_queries(t, g, q0, qn);
        weights(t, g, q0, qn, k0, kn);
        tile_product(kn, ld_, qn, {t.p, 1, kTile}, t.d_o, ld_, t.dv, ld_);
        tile_product(kn, ld_, qn, {t.ds, 1, kTile}, t.q, ld_, t.dk, ld_);
        if constexpr (with_dq)
          tile_product(qn, ld_, kn, {t.ds, kTile, 1}, t.k, ld_, t.dq + (g * s_.nq + q0) * ld_, ld_);
      }
    }
    write(t.dk, kn, s_.k0 + k0, kv_head_, 1.0f, dk);  // q was loaded with the scale in it
    write(t.dv, kn, s_.k0 + k0, kv_head_, 1.0f, dv);
  }

  void load_keys(const Tiles& t, int64_t k0, int64_t kn) const {
    const auto row = [&](int64_t j) { return s_.k0 + k0 + j; };
    load_tile(kv_.k.as<T>(), kv_.k.pitch, kv_head_ * e_, kn, e_, ld_, 1.0f, t.k, row);
    load_tile(kv_.v.as<T>(), kv_.v.pitch, kv_head_ * e_, kn, e_, ld_, 1.0f, t.v, row);
    transpose_tile(t.k, kn, ld_, t.k_transposed);
    transpose_tile(t.v, kn, ld_, t.v_transposed);
  }

  void load_queries(const Tiles& t, int64_t g, int64_t q0, int64_t qn) const {
    const int64_t column = (kv_head_ * group_ + g) * e_;
    const auto row = [&](int64_t i) { return s_.q0 + q0 + i; };
    load_tile(q_.as<T>(), q_.pitch, column, qn, e_, ld_, shape_.scale, t.q, row);
    load_tile(d_o_.as<T>(), d_o_.pitch, column, qn, e_, ld_, 1.0f, t.d_o, row);
    load_tile(o_.as<T>(), o_.pitch, column, qn, e_, ld_, 1.0f, t.o, row);
    for (int64_t i = 0; i < qn; ++i) {
      Vec total = _mm256_setzero_ps();
      for (int64_t j = 0; j < ld_; j += kLanes)
        total = _mm256_fmadd_ps(load(t.d_o + i * ld_ + j), load(t.o + i * ld_ + j), total);
      t.delta[i] = sum(total);
    }
  }

  // p and ds of one tile; zeros where the mask hides the key.
  void weights(const Tiles& t, int64_t g, int64_t q0, int64_t qn, int64_t k0, int64_t kn) const {
    std::fill_n(t.p, qn * kTile, 0.0f);
    std::fill_n(t.ds, qn * kTile, 0.0f);
    tile_product(qn, kTile, e_, {t.q, ld_, 1}, t.k_transposed, kTile, t.p, kTile);
    tile_product(qn, kTile, e_, {t.d_o, ld_, 1}, t.v_transposed, kTile, t.ds, kTile);
    for (int64_t i = 0; i < qn; ++i) {
      float *p = t.p + i * kTile, *ds = t.ds + i * kTile;
      const int64_t n = visible(s_, q0 + i, k0, kn);
      const Vec shift = _mm256_set1_ps(lse_.as<float>()[(s_.q0 + q0 + i) * lse_.pitch + kv_head_ * group_ + g]),
                delta = _mm256_set1_ps(t.delta[i]);
      for (int64_t j = 0; j < n; j += kLanes) {
        const Vec w = exp(_mm256_sub_ps(load(p + j), shift));
        store(p + j, w);
        store(ds + j, _mm256_mul_ps(w, _mm256_sub_ps(load(ds + j), delta)));
      }
      std::fill(p + n, p + kTile, 0.0f);
      std::fill(ds + n, ds + kTile, 0.0f);
    }
  }

  void write(const float* from, int64_t rows, int64_t first_row, int64_t head, float factor, Tensor to) const {
    const Vec f = _mm256_set1_ps(factor);
    for (int64_t i = 0; i < rows; ++i) {
      map_row(
          e_, [&](Vec v) { return _mm256_mul_ps(v, f); }, to.as<T>() + (first_row + i) * to.pitch + head * e_,
          from + i * ld_);
    }
  }

  const AttentionShape& shape_;
  const Segment& s_;
  int64_t kv_head_;
  Tensor q_;
  KvView kv_;
  Tensor o_, lse_, d_o_;
  int64_t e_, ld_, group_;
};

struct Task {
  const Segment* segment;
  int64_t kv_head;
  int64_t key_tile, query_tile;  // -1: not this one; both -1: the whole segment in one pass
};

}  // namespace

void CpuBackend::do_attention_backward(Tensor q, const KvView& kv, std::span<const Segment> segments,
                                       const AttentionShape& shape, Tensor o, Tensor lse, Tensor d_o, Tensor dq,
                                       Tensor dk, Tensor dv) {
  std::vector<Task> tasks;
  const bool few = static_cast<int64_t>(segments.size()) * shape.kv_heads < threads_;
  for (const Segment& s : segments) {
    require(s.block_table == nullptr, "attention_backward reads contiguous keys");
    for (int64_t head = 0; head < shape.kv_heads; ++head) {
      if (!few && shape.heads / shape.kv_heads * s.nq * padded(shape.head_dim) <= kOnePassFloats) {
        tasks.push_back({&s, head, -1, -1});
        continue;
      }
      for (int64_t k0 = 0; k0 < s.nk; k0 += kTile) tasks.push_back({&s, head, k0, -1});
      for (int64_t q0 = (s.nq - 1) / kTile * kTile; q0 >= 0 && s.nq > 0; q0 -= kTile)
        tasks.push_back({&s, head, -1, q0});
    }
  }
  with_type(q, [&](auto* typed) {
    using T = std::remove_pointer_t<decltype(typed)>;
#pragma omp parallel for num_threads(threads_) schedule(dynamic)
    for (size_t i = 0; i < tasks.size(); ++i) {
      const Task& task = tasks[i];
      Backward<T> backward(shape, *task.segment, task.kv_head, q, kv, o, lse, d_o);
      if (task.key_tile >= 0) {
        backward.keys_only(task.key_tile, dk, dv);
      } else if (task.query_tile >= 0) {
        backward.queries_only(task.query_tile, dq);
      } else {
        backward.one_pass(dq, dk, dv);
      }
    }
  });
}

}  // namespace drover::cpu
