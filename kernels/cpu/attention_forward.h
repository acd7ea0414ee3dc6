// Attention's forward for one instruction set (attention_tile.h): tiles of 64 queries × 64 keys with an online softmax
// in fp32 (Dao 2023, FlashAttention-2). A key tile comes from memory once for all query heads of the task.
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
        rows_of_kv_head_(group_ * qn_),
        rows_(task.kv_heads * rows_of_kv_head_),
        read_(task.part == ForwardPart::piece ? keys_of(task.piece) : Keys{0, task.k_end}),
        buffers_({rows_ * w_.row, Set::kPair == 1 ? 0 : kTile * w_.row, w_.row * kTile, kTile * w_.numbers,
                  kTile * kTile, piece_floats(rows_, w_.e), piece_floats(rows_, w_.e)}) {}

  void all() {
    load_queries();
    const Piece sum = piece_at(buffers_[5]), next = piece_at(buffers_[6]);
    compute(keys_of(0), sum);
    for (int64_t i = 1; i < forward_pieces(s_, task_.k_end); ++i) {
      compute(keys_of(i), next);
      join(next, sum);
    }
    write(sum);
  }
  void one_piece() {
    load_queries();
    compute(read_, stored(task_.piece));
  }
  void joined() {
    const Piece sum = stored(0);
    for (int64_t i = 1; i < forward_pieces(s_, task_.k_end); ++i) join(stored(i), sum);
    write(sum);
  }

 private:
  struct Keys {
    int64_t begin, end;
  };
  Keys keys_of(int64_t piece) const {
    if (s_.block_table == nullptr) return {0, task_.k_end};
    const int64_t begin = piece * kPieceKeys;
    return {begin, std::min(begin + kPieceKeys, task_.k_end)};
  }
  // Sums over some of the keys, for the tile's queries, with weights 2^(score - highest).
  struct Piece {
    float *sums, *highest, *total;  // (rows, numbers), (rows), (rows)
  };
  Piece piece_at(float* at) const { return {at, at + rows_ * w_.numbers, at + rows_ * (w_.numbers + 1)}; }
  Piece stored(int64_t i) const { return piece_at(task_.pieces + i * piece_floats(rows_, w_.e)); }

  int64_t head(int64_t row) const { return task_.kv_head * group_ + row / qn_; }
  int64_t seen(int64_t row, int64_t k0, int64_t kn) const { return visible(s_, task_.q_begin + row % qn_, k0, kn); }
  // Of rows [begin, begin + count): the most that one sees.
  int64_t most_seen(int64_t begin, int64_t count, int64_t k0, int64_t kn) const {
    const int64_t first = begin % qn_, last = first + count > qn_ ? qn_ - 1 : first + count - 1;
    return visible(s_, task_.q_begin + last, k0, kn);
  }

  void load_queries() {
    for (int64_t row = 0; row < rows_; row += qn_) {
      load_rows<Set>(call_.q.as<T>(), call_.q.pitch, head(row) * w_.e, qn_, w_, q_ + row * w_.row,
                     [&](int64_t i) { return s_.q0 + task_.q_begin + i; });
    }
  }

  void compute(Keys keys, const Piece& to) {
    std::fill_n(to.sums, rows_ * w_.numbers, 0.0f);
    std::fill_n(to.highest, rows_, kMinusInfinity);
    std::fill_n(to.total, rows_, 0.0f);
    for (int64_t k0 = keys.begin; k0 < keys.end; k0 += kTile) {
      if (Set::kBringsNextTile && k0 == read_.begin) bring(k0);
      bring(Set::kBringsNextTile ? k0 + kTile : k0);
      for (int64_t h = 0; h < task_.kv_heads; ++h) key_tile(k0, std::min(kTile, keys.end - k0), h, to);
    }
  }

  // Adds what a piece of later keys has summed.
  void join(const Piece& next, const Piece& sum) const {
    for (int64_t row = 0; row < rows_; ++row) {
      if (next.total[row] == 0) continue;  // it sees none of these keys
      const float highest = std::max(sum.highest[row], next.highest[row]);
      const float keep = weight(sum.highest[row], highest), add = weight(next.highest[row], highest);
      sum.highest[row] = highest;
      sum.total[row] = sum.total[row] * keep + next.total[row] * add;
      float* sums = sum.sums + row * w_.numbers;
      const float* more = next.sums + row * w_.numbers;
      for (int64_t j = 0; j < w_.numbers; j += Set::kLanes) {
        const auto kept = Set::multiply(Set::load(sums + j), Set::all(keep));
        Set::store(sums + j, Set::add(kept, Set::multiply(Set::load(more + j), Set::all(add))));
      }
    }
  }
  // Of what was summed up to one highest score, now that another is the highest; 0 of nothing.
  static float weight(float highest, float now) { return highest == kMinusInfinity ? 0.0f : std::exp2(highest - now); }

  // Keys and values come from memory before they are multiplied, a line after the other (Set::bring).
  void bring(int64_t k0) const {
    const KvView& kv = call_.kv;
    const int64_t n = std::min(kTile, read_.end - k0), column = task_.kv_head * w_.e, columns = task_.kv_heads * w_.e;
    int64_t rows[kTile];
    key_rows(s_, kv, k0, n, rows);
    constexpr int64_t kInLine = 64 / sizeof(T);
    for (const Tensor& from : {kv.k, kv.v}) {
      for (int64_t j = 0; j < n; ++j) {
        const T* row = from.as<T>() + rows[j] * from.pitch + column;
        for (int64_t i = 0; i < columns; i += kInLine) Set::bring(row + i);
      }
    }
  }

  // Of the task's KV head h.
  void key_tile(int64_t k0, int64_t kn, int64_t h, const Piece& to) {
    load_keys(k0, kn, h);
    const int64_t heads_at_once = std::min(kTile / qn_, group_);
    for (int64_t g = 0; g < group_; g += heads_at_once) {
      const int64_t begin = h * rows_of_kv_head_ + g * qn_, rows = std::min(heads_at_once, group_ - g) * qn_;
      const auto most = [&](int64_t i, int64_t count) { return most_seen(begin + i, count, k0, kn); };
      multiply<Set>(rows, w_.words, {q_ + begin * w_.row, w_.row, 1}, {keys_, kTile}, {scores_, kTile},
                    [&](int64_t i, int64_t count) { return whole_vectors<Set>(most(i, count)); });
      for (int64_t i = 0; i < rows; ++i) weigh(i, begin + i, seen(begin + i, k0, kn), to);
      multiply_add<Set>(rows, w_.numbers, {scores_, kTile, 1}, {values_, w_.numbers},
                        {to.sums + begin * w_.numbers, w_.numbers}, [&](int64_t i, int64_t count) -> WordRange {
                          return {0, (most(i, count) + Set::kPair - 1) / Set::kPair};
                        });
    }
  }

  // The softmax of a row of scores that sees n keys of the tile.
  void weigh(int64_t row, int64_t at, int64_t n, const Piece& to) {
    if (n == 0) {
      std::fill_n(scores_ + row * kTile, kTile, 0.0f);
      return;
    }
    const float before = to.highest[at];
    const float added = exponentiate<Set>(scores_ + row * kTile, n, call_.shape.scale * kLog2E, to.highest[at]);
    if (before == to.highest[at]) {
      to.total[at] += added;
      return;
    }
    const float keep = weight(before, to.highest[at]);
    to.total[at] = to.total[at] * keep + added;
    float* sums = to.sums + at * w_.numbers;
    for (int64_t j = 0; j < w_.numbers; j += Set::kLanes)
      Set::store(sums + j, Set::multiply(Set::load(sums + j), Set::all(keep)));
  }

  void load_keys(int64_t k0, int64_t kn, int64_t h) {
    const KvView& kv = call_.kv;
    int64_t rows[kTile];
    key_rows(s_, kv, k0, kn, rows);
    const auto row = [&](int64_t j) { return rows[j]; };
    const int64_t column = (task_.kv_head + h) * w_.e;
    if constexpr (Set::kPair == 1) {
      const T* keys = kv.k.as<T>() + column;
      transpose_tile<Set, T>(kn, w_.e, w_.row, keys_, [&](int64_t i) { return keys + rows[i] * kv.k.pitch; });
      load_rows<Set>(kv.v.as<T>(), kv.v.pitch, column, kn, w_, values_, row);
    } else {
      load_rows<Set>(kv.k.as<T>(), kv.k.pitch, column, kn, w_, rows_of_head_, row);
      transpose_tile<Set>(rows_of_head_, kn, w_.row, keys_);
      load_rows<Set>(kv.v.as<T>(), kv.v.pitch, column, kn, w_, rows_of_head_, row);
      along_rows<Set>(rows_of_head_, kn, w_, values_);
    }
  }

  void write(const Piece& sum) const {
    for (int64_t row = 0; row < rows_; ++row) {
      const int64_t at = s_.q0 + task_.q_begin + row % qn_;
      const float total = sum.total[row];  // 0 where nothing was seen; NaN passes through
      write_head(sum.sums + row * w_.numbers, w_.e, total != 0 ? 1.0f / total : 0.0f,
                 call_.o.as<T>() + at * call_.o.pitch + head(row) * w_.e);
      call_.lse.as<float>()[at * call_.lse.pitch + head(row)] =
          total != 0 ? sum.highest[row] * kLn2 + std::log(total) : kMinusInfinity;
    }
  }

  const AttentionForward& call_;
  const ForwardTask& task_;
  const Segment& s_;
  const HeadWidths<Set> w_;
  const int64_t group_, qn_, rows_of_kv_head_, rows_;  // row g·qn + i is query i of head g
  const Keys read_;                                    // the keys that the task reads
  const TileBuffers buffers_;
  float *const q_ = buffers_[0], *const rows_of_head_ = buffers_[1], *const keys_ = buffers_[2],
               *const values_ = buffers_[3], *const scores_ = buffers_[4];
};

template <class Set, typename T>
void forward(const AttentionForward& call, const ForwardTask& task) {
  Forward<Set, T> work(call, task);
  switch (task.part) {
    case ForwardPart::all: return work.all();
    case ForwardPart::piece: return work.one_piece();
    case ForwardPart::join: return work.joined();
  }
}

}  // namespace drover::cpu
