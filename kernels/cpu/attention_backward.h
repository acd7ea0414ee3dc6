// Attention's gradients for one instruction set (attention_tile.h), p recomputed from lse:
//   ds = p∘(dO·Vᵀ - delta),  dq = scale·ds·K,  dk = scale·dsᵀ·Q,  dv = pᵀ·dO,  delta = Σ dO∘O.
// dk and dv of a key tile are summed by one thread in one order, and so is dq of a query tile over half of the keys.
#pragma once
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_tile.h"

namespace drover::cpu {

template <class Set, typename T>
class Backward {
 public:
  Backward(const AttentionBackward& call, const BackwardTask& task)
      : call_(call),
        s_(*task.segment),
        kv_head_(task.kv_head),
        w_(call.shape.head_dim),
        group_(call.shape.heads / call.shape.kv_heads),
        first_half_(keys_of_first_half(s_, call.shape)),
        dq_rows_(task.part == BackwardPart::whole        ? s_.nq
                 : task.part == BackwardPart::query_tile ? kTile
                                                         : 0),
        buffers_({kTile * w_.row, kTile * w_.row, kTile * w_.row, w_.row * kTile, w_.row * kTile, kTile * w_.numbers,
                  kTile * w_.numbers, kTile * w_.numbers, kTile * w_.numbers, kTile * w_.numbers, kTile * kTile,
                  kTile * kTile, kTile * kTile, kTile * kTile, kTile, halves() * half_floats(call.shape, dq_rows_)}) {}

  // All of a segment's KV head.
  void whole() {
    const int64_t floats = half_floats(call_.shape, s_.nq);
    half_of_keys(BackwardPart::first_half, dq_);
    if (halves() == 2) half_of_keys(BackwardPart::second_half, dq_ + floats);
    join(dq_, 0, s_.nq);
  }
  // dk and dv of its keys, and its sum of dq.
  void half_of_keys(BackwardPart half, float* dq) {
    std::fill_n(dq, half_floats(call_.shape, s_.nq), 0.0f);
    const bool first = half == BackwardPart::first_half;
    const int64_t end = first ? first_half_ : s_.nk;
    for (int64_t k0 = first ? 0 : first_half_; k0 < end; k0 += kTile) key_tile(k0, dq);
  }
  // dq = both halves' sums, of queries [q0, q0 + qn).
  void join(float* dq, int64_t q0, int64_t qn) const {
    const int64_t floats = half_floats(call_.shape, qn);
    for (int64_t i = 0; halves() == 2 && i < floats; i += Set::kLanes)
      Set::store(dq + i, Set::add(Set::load(dq + i), Set::load(dq + floats + i)));
    for (int64_t g = 0; g < group_; ++g)
      write(dq + g * qn * w_.numbers, qn, s_.q0 + q0, head(g), call_.shape.scale, call_.dq);
  }
  void keys_only(int64_t k0) { key_tile(k0, nullptr); }
  void queries_only(int64_t q0) {
    const int64_t qn = std::min(kTile, s_.nq - q0), floats = half_floats(call_.shape, qn);
    std::fill_n(dq_, halves() * floats, 0.0f);
    for (int64_t k0 = 0; k0 < std::min(s_.nk, q0 + qn + s_.offset); k0 += kTile) {
      const int64_t kn = std::min(kTile, s_.nk - k0);
      float* const half = dq_ + (k0 < first_half_ ? 0 : floats);
      load_keys(k0, kn);
      for (int64_t g = 0; g < group_; ++g) {
        load_queries(g, q0, qn);
        weigh(g, q0, qn, k0, kn);
        add_dq(q0, qn, k0, kn, half + g * qn * w_.numbers);
      }
    }
    join(dq_, q0, qn);
  }

 private:
  int64_t head(int64_t g) const { return kv_head_ * group_ + g; }
  int64_t halves() const { return first_half_ < s_.nk ? 2 : 1; }

  // dq: of all queries, or none.
  void key_tile(int64_t k0, float* dq) {
    const int64_t kn = std::min(kTile, s_.nk - k0);
    load_keys(k0, kn);
    std::fill_n(dk_, kTile * w_.numbers, 0.0f);
    std::fill_n(dv_, kTile * w_.numbers, 0.0f);
    const int64_t first_query = std::max<int64_t>(0, k0 - s_.offset) / kTile * kTile;
    for (int64_t g = 0; g < group_; ++g) {
      for (int64_t q0 = first_query; q0 < s_.nq; q0 += kTile) {
        const int64_t qn = std::min(kTile, s_.nq - q0);
        load_queries(g, q0, qn);
        weigh(g, q0, qn, k0, kn);
        // Of a tile's queries, the words of those that see key j of it, or a later one.
        const auto seeing = [&](int64_t j, int64_t) -> WordRange {
          const int64_t first = std::clamp<int64_t>(k0 + j - s_.offset - q0, 0, qn);
          return {first / Set::kPair, (qn + Set::kPair - 1) / Set::kPair};
        };
        multiply_add<Set>(kn, w_.numbers, {p_by_query_, 1, kTile}, {d_o_by_query_, w_.numbers}, {dv_, w_.numbers},
                          seeing);
        multiply_add<Set>(kn, w_.numbers, {ds_by_query_, 1, kTile}, {q_by_query_, w_.numbers}, {dk_, w_.numbers},
                          seeing);
        if (dq != nullptr) add_dq(q0, qn, k0, kn, dq + (g * s_.nq + q0) * w_.numbers);
      }
    }
    write(dk_, kn, s_.k0 + k0, kv_head_, call_.shape.scale, call_.dk);
    write(dv_, kn, s_.k0 + k0, kv_head_, 1.0f, call_.dv);
  }

  // Of rows i, i + 1, … the most keys that one sees.
  int64_t most_seen(int64_t q0, int64_t i, int64_t count, int64_t k0, int64_t kn) const {
    return visible(s_, q0 + i + count - 1, k0, kn);
  }

  void add_dq(int64_t q0, int64_t qn, int64_t k0, int64_t kn, float* dq) const {
    multiply_add<Set>(qn, w_.numbers, {ds_, kTile, 1}, {k_by_key_, w_.numbers}, {dq, w_.numbers},
                      [&](int64_t i, int64_t count) -> WordRange {
                        return {0, (most_seen(q0, i, count, k0, kn) + Set::kPair - 1) / Set::kPair};
                      });
  }

  // Rows of `from` as operands along the head (to) and along the rows (by_row, which may be the same memory).
  template <typename Row>
  void load_both(Tensor from, int64_t head, int64_t rows, float* to, float* by_row, Row&& row) const {
    load_rows<Set>(from.as<T>(), from.pitch, head * w_.e, rows, w_, to, row);
    if constexpr (Set::kPair == 2) along_rows<Set>(to, rows, w_, by_row);
  }

  void load_keys(int64_t k0, int64_t kn) const {
    const auto row = [&](int64_t j) { return s_.k0 + k0 + j; };
    load_both(call_.kv.k, kv_head_, kn, k_rows_, k_by_key_, row);
    transpose_tile<Set>(k_rows_, kn, w_.row, k_transposed_);
    load_rows<Set>(call_.kv.v.as<T>(), call_.kv.v.pitch, kv_head_ * w_.e, kn, w_, q_, row);
    transpose_tile<Set>(q_, kn, w_.row, v_transposed_);
  }

  void load_queries(int64_t g, int64_t q0, int64_t qn) const {
    const auto row = [&](int64_t i) { return s_.q0 + q0 + i; };
    load_both(call_.q, head(g), qn, q_, q_by_query_, row);
    load_both(call_.d_o, head(g), qn, d_o_, d_o_by_query_, row);
    const int64_t column = head(g) * w_.e;
    for (int64_t i = 0; i < qn; ++i) {
      delta_[i] = Set::dot(call_.d_o.as<T>() + row(i) * call_.d_o.pitch + column,
                           call_.o.as<T>() + row(i) * call_.o.pitch + column, w_.e);
    }
  }

  // p and ds of one tile, as operands along the keys and along the queries; zeros where the mask hides the key.
  void weigh(int64_t g, int64_t q0, int64_t qn, int64_t k0, int64_t kn) const {
    const auto columns = [&](int64_t i, int64_t count) { return whole_vectors<Set>(most_seen(q0, i, count, k0, kn)); };
    multiply<Set>(qn, w_.words, {q_, w_.row, 1}, {k_transposed_, kTile}, {p_, kTile}, columns);
    multiply<Set>(qn, w_.words, {d_o_, w_.row, 1}, {v_transposed_, kTile}, {ds_, kTile}, columns);
    for (int64_t i = 0; i < qn; ++i) {
      const float lse = call_.lse.as<float>()[(s_.q0 + q0 + i) * call_.lse.pitch + head(g)];
      weigh_row(p_ + i * kTile, ds_ + i * kTile, visible(s_, q0 + i, k0, kn), lse * kLog2E, delta_[i]);
    }
    if constexpr (Set::kPair == 2) {
      for (int64_t i = 0; i < qn; i += 2) {
        const bool paired = i + 1 < qn;
        for (const auto& [from, to] : {std::pair{p_, p_by_query_}, std::pair{ds_, ds_by_query_}})
          Set::interleave_rounded(from + i * kTile, paired ? from + (i + 1) * kTile : nullptr, to + i / 2 * kTile);
      }
      for (int64_t i = 0; i < qn; ++i) Set::round_row(ds_ + i * kTile);
    }
  }

  void weigh_row(float* p, float* ds, int64_t n, float shift, float delta) const {
    const auto factor = Set::all(call_.shape.scale * kLog2E), shifts = Set::all(shift), deltas = Set::all(delta);
#pragma GCC unroll 8
    for (int64_t j = 0; j < kTile; j += Set::kLanes) {
      const auto score = Set::subtract(Set::multiply(Set::load(p + j), factor), shifts);
      const auto w = Set::first(n - j, Set::exp2(score), 0);
      Set::store(p + j, w);
      Set::store(ds + j, Set::first(n - j, Set::multiply(w, Set::subtract(Set::load(ds + j), deltas)), 0));
    }
  }

  void write(const float* from, int64_t rows, int64_t first_row, int64_t head, float factor, Tensor to) const {
    for (int64_t i = 0; i < rows; ++i)
      write_head(from + i * w_.numbers, w_.e, factor, to.as<T>() + (first_row + i) * to.pitch + head * w_.e);
  }

  const AttentionBackward& call_;
  const Segment& s_;
  const int64_t kv_head_;
  const HeadWidths<Set> w_;
  const int64_t group_, first_half_, dq_rows_;
  const TileBuffers buffers_;
  // Where a word is one number, operands along the rows are those along the head.
  float *const q_ = buffers_[0], *const d_o_ = buffers_[1], *const k_rows_ = buffers_[2],
               *const k_transposed_ = buffers_[3], *const v_transposed_ = buffers_[4], *const dk_ = buffers_[5],
               *const dv_ = buffers_[6], *const k_by_key_ = Set::kPair == 2 ? buffers_[7] : k_rows_,
               *const q_by_query_ = Set::kPair == 2 ? buffers_[8] : q_,
               *const d_o_by_query_ = Set::kPair == 2 ? buffers_[9] : d_o_, *const p_ = buffers_[10],
               *const ds_ = buffers_[11], *const p_by_query_ = Set::kPair == 2 ? buffers_[12] : p_,
               *const ds_by_query_ = Set::kPair == 2 ? buffers_[13] : ds_, *const delta_ = buffers_[14],
               *const dq_ = buffers_[15];
};

template <class Set, typename T>
void backward(const AttentionBackward& call, const BackwardTask& task) {
  Backward<Set, T> work(call, task);
  switch (task.part) {
    case BackwardPart::whole: return work.whole();
    case BackwardPart::first_half: return work.half_of_keys(task.part, task.halves);
    case BackwardPart::second_half:
      return work.half_of_keys(task.part, task.halves + half_floats(call.shape, task.segment->nq));
    case BackwardPart::join: return work.join(task.halves, 0, task.segment->nq);
    case BackwardPart::key_tile: return work.keys_only(task.begin);
    case BackwardPart::query_tile: return work.queries_only(task.begin);
  }
}

}  // namespace drover::cpu
