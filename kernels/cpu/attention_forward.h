// Attention's forward for one instruction set (attention_tile.h): tiles of 64 queries × 64 keys with an online softmax
// in fp32 (Dao 2023, FlashAttention-2). A key tile is read once for all query heads of its group.
#pragma once
#include <cmath>

#include "kernels/cpu/attention_tile.h"

namespace drover::cpu {

// Turns the first n scores of a row, times `factor`, into 2^(score - max) as an operand along the keys, the rest of the
// tile into zeros; returns their sum and raises the running maximum.
template <class Set>
float exponentiate(float* p, int64_t n, float factor, float& highest) {
  using V = typename Set::V;
  constexpr int64_t kVectors = kTile / Set::kLanes;
  V scores[kVectors], most = Set::all(highest);
#pragma GCC unroll 8
  for (int64_t v = 0; v < kVectors; ++v) {
    const V score = Set::multiply(Set::load(p + v * Set::kLanes), Set::all(factor));
    scores[v] = Set::first(n - v * Set::kLanes, score, kMinusInfinity);
    most = Set::max(scores[v], most);
  }
  highest = Set::highest(most);
  const V shift = Set::all(highest);
  V total = Set::all(0);
#pragma GCC unroll 8
  for (int64_t v = 0; v < kVectors; ++v) {
    scores[v] = Set::exp2(Set::subtract(scores[v], shift));
    total = Set::add(total, scores[v]);
  }
  Set::store_operand(scores, p);
  return Set::sum(total);
}

template <class Set, typename T>
class Forward {
 public:
  Forward(const AttentionForward& call, const ForwardTask& task)
      : call_(call),
        task_(task),
        s_(*task.segment),
        w_(call.shape.head_dim),
        group_(call.shape.heads / call.shape.kv_heads),
        qn_(std::min(kTile, s_.nq - task.q_begin)),
        rows_(group_ * qn_),
        buffers_({rows_ * w_.row, rows_ * w_.numbers, kTile * w_.row, w_.row * kTile, kTile * w_.numbers, kTile * kTile,
                  rows_, rows_}) {}

  void run() {
    for (int64_t g = 0; g < group_; ++g) {
      load_rows<Set>(call_.q.as<T>(), call_.q.pitch, head(g) * w_.e, qn_, w_, q_ + g * qn_ * w_.row,
                     [&](int64_t i) { return s_.q0 + task_.q_begin + i; });
    }
    std::fill_n(sums_, rows_ * w_.numbers, 0.0f);
    std::fill_n(highest_, rows_, kMinusInfinity);
    std::fill_n(total_, rows_, 0.0f);
    ask_for(0);
    for (int64_t k0 = 0; k0 < task_.k_end; k0 += kTile) key_tile(k0, std::min(kTile, task_.k_end - k0));
    for (int64_t g = 0; g < group_; ++g) write(g);
  }

 private:
  int64_t head(int64_t g) const { return task_.kv_head * group_ + g; }
  int64_t seen(int64_t row, int64_t k0, int64_t kn) const { return visible(s_, task_.q_begin + row % qn_, k0, kn); }
  // Of rows [begin, begin + count): the most that one sees.
  int64_t most_seen(int64_t begin, int64_t count, int64_t k0, int64_t kn) const {
    const int64_t first = begin % qn_, last = first + count > qn_ ? qn_ - 1 : first + count - 1;
    return visible(s_, task_.q_begin + last, k0, kn);
  }

  // Keys and values from memory come while those before them are multiplied.
  void ask_for(int64_t k0) const {
    const KvView& kv = call_.kv;
    const int64_t n = std::min(kTile, task_.k_end - k0), column = task_.kv_head * w_.e;
    int64_t rows[kTile];
    key_rows(s_, kv, k0, n, rows);
    constexpr int64_t kInLine = 64 / sizeof(T);
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t i = 0; i < w_.e; i += kInLine) {
        _mm_prefetch(reinterpret_cast<const char*>(kv.k.as<T>() + rows[j] * kv.k.pitch + column + i), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(kv.v.as<T>() + rows[j] * kv.v.pitch + column + i), _MM_HINT_T0);
      }
    }
  }

  void key_tile(int64_t k0, int64_t kn) {
    ask_for(k0 + kTile);
    load_keys(k0, kn);
    const int64_t heads_at_once = std::min(kTile / qn_, group_);
    for (int64_t g = 0; g < group_; g += heads_at_once) {
      const int64_t begin = g * qn_, rows = std::min(heads_at_once, group_ - g) * qn_;
      const auto most = [&](int64_t i, int64_t count) { return most_seen(begin + i, count, k0, kn); };
      multiply<Set>(rows, w_.words, {q_ + begin * w_.row, w_.row, 1}, {keys_, kTile}, {scores_, kTile},
                    [&](int64_t i, int64_t count) { return whole_vectors<Set>(most(i, count)); });
      for (int64_t i = 0; i < rows; ++i) weigh(i, begin + i, seen(begin + i, k0, kn));
      multiply_add<Set>(rows, w_.numbers, {scores_, kTile, 1}, {values_, w_.numbers},
                        {sums_ + begin * w_.numbers, w_.numbers}, [&](int64_t i, int64_t count) -> WordRange {
                          return {0, (most(i, count) + Set::kPair - 1) / Set::kPair};
                        });
    }
  }

  // The softmax of a row of scores that sees n keys of the tile.
  void weigh(int64_t row, int64_t at, int64_t n) {
    if (n == 0) {
      std::fill_n(scores_ + row * kTile, kTile, 0.0f);
      return;
    }
    const float before = highest_[at];
    const float added = exponentiate<Set>(scores_ + row * kTile, n, call_.shape.scale * kLog2E, highest_[at]);
    if (before == highest_[at]) {
      total_[at] += added;
      return;
    }
    const float keep = before == kMinusInfinity ? 0.0f : std::exp2(before - highest_[at]);
    total_[at] = total_[at] * keep + added;
    float* sums = sums_ + at * w_.numbers;
    for (int64_t j = 0; j < w_.numbers; j += Set::kLanes)
      Set::store(sums + j, Set::multiply(Set::load(sums + j), Set::all(keep)));
  }

  void load_keys(int64_t k0, int64_t kn) {
    const KvView& kv = call_.kv;
    int64_t rows[kTile];
    key_rows(s_, kv, k0, kn, rows);
    const auto row = [&](int64_t j) { return rows[j]; };
    const int64_t column = task_.kv_head * w_.e;
    load_rows<Set>(kv.k.as<T>(), kv.k.pitch, column, kn, w_, rows_of_head_, row);
    transpose_tile<Set>(rows_of_head_, kn, w_.row, keys_);
    if constexpr (Set::kPair == 1) {
      load_rows<Set>(kv.v.as<T>(), kv.v.pitch, column, kn, w_, values_, row);
    } else {
      load_rows<Set>(kv.v.as<T>(), kv.v.pitch, column, kn, w_, rows_of_head_, row);
      along_rows<Set>(rows_of_head_, kn, w_, values_);
    }
  }

  void write(int64_t g) {
    for (int64_t i = 0; i < qn_; ++i) {
      const int64_t at = s_.q0 + task_.q_begin + i, row = g * qn_ + i;
      const float total = total_[row];  // 0 where nothing was seen; NaN passes through
      write_head(sums_ + row * w_.numbers, w_.e, total != 0 ? 1.0f / total : 0.0f,
                 call_.o.as<T>() + at * call_.o.pitch + head(g) * w_.e);
      call_.lse.as<float>()[at * call_.lse.pitch + head(g)] =
          total != 0 ? highest_[row] * kLn2 + std::log(total) : kMinusInfinity;
    }
  }

  const AttentionForward& call_;
  const ForwardTask& task_;
  const Segment& s_;
  const HeadWidths<Set> w_;
  const int64_t group_, qn_, rows_;  // row g·qn + i is query i of head g
  const TileBuffers buffers_;
  float *const q_ = buffers_[0], *const sums_ = buffers_[1], *const rows_of_head_ = buffers_[2],
               *const keys_ = buffers_[3], *const values_ = buffers_[4], *const scores_ = buffers_[5],
               *const highest_ = buffers_[6], *const total_ = buffers_[7];
};

}  // namespace drover::cpu
