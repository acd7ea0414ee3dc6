// Tiles of attention for one instruction set: loading, transposing, products, softmax. To be included once in each of
// its files, behind the `#pragma GCC target` of the set: `Set` is a type of the file's own, so that no function here is
// shared between sets.
//
// An operand of a product is made of words of 32 bits, which lie in arrays of float: a number each (Set::kPair 1), or
// two neighbours in bf16 along the sum's index (kPair 2), the first in the lower half. Tiles have Set::kLanes·n words a
// row; what lies behind their data is 0.
#pragma once
#include <algorithm>

#include "kernels/cpu/attention_common.h"
#include "kernels/cpu/attention_kernels.h"

namespace drover::cpu {

// c (M × N vectors) = or += a (M × words) · b (words × N vectors). The sums stay in registers only where every loop
// over them is unrolled.
template <class Set, int M, int N, bool add>
[[gnu::always_inline]] inline void multiply_block(WordRange words, Strided a, Words b, Sums c) {
  using V = typename Set::V;
  V sums[M][N];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) sums[i][j] = add ? Set::load(c.from(i).at(j * Set::kLanes).data) : Set::all(0);
  }
  for (int64_t l = words.begin; l < words.end; ++l) {
    V bs[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) bs[j] = Set::load(b.data + l * b.pitch + j * Set::kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const V as = Set::all(a.data[i * a.row + l * a.col]);
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sums[i][j] = Set::multiply_add(as, bs[j], sums[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) Set::store(c.from(i).at(j * Set::kLanes).data, sums[i][j]);
  }
}

template <class Set, int M, bool add>
void multiply_rows(int64_t n, WordRange words, Strided a, Words b, Sums c) {
  constexpr int kBlock = M <= 3 ? Set::kBlockOfFewRows : Set::kBlock;
  constexpr int64_t kWide = kBlock * Set::kLanes;
  int64_t j = 0;
  for (; j + kWide <= n; j += kWide) multiply_block<Set, M, kBlock, add>(words, a, b.at(j), c.at(j));
  for (; j < n; j += Set::kLanes) multiply_block<Set, M, 1, add>(words, a, b.at(j), c.at(j));
}

template <class Set, bool add>
void multiply_some_rows(int64_t m, int64_t n, WordRange words, Strided a, Words b, Sums c) {
  if constexpr (Set::kTiles) {
    Set::template multiply_rows<add>(m, n, words, a, b, c);
    return;
  } else {
    switch (m) {
      case 1: return multiply_rows<Set, 1, add>(n, words, a, b, c);
      case 2: return multiply_rows<Set, 2, add>(n, words, a, b, c);
      case 3: return multiply_rows<Set, 3, add>(n, words, a, b, c);
      case 4: return multiply_rows<Set, 4, add>(n, words, a, b, c);
      case 5: return multiply_rows<Set, 5, add>(n, words, a, b, c);
      default: return multiply_rows<Set, 6, add>(n, words, a, b, c);
    }
  }
}

// c (m × n) = a (m × words) · b (words × n), but only the first columns(i, rows) of the rows i, i+1, …: the others need
// not be written.
template <class Set, typename Columns>
void multiply(int64_t m, int64_t words, Strided a, Words b, Sums c, Columns&& columns) {
  for (int64_t i = 0; i < m; i += Set::kRowBlock) {
    const int64_t rows = std::min(Set::kRowBlock, m - i);
    multiply_some_rows<Set, false>(rows, columns(i, rows), {0, words}, a.from(i), b, c.from(i));
  }
}

// c (m × n) += a (m × words) · b (words × n), where rows i, i+1, … of a are 0 outside words(i, rows).
template <class Set, typename Range>
void multiply_add(int64_t m, int64_t n, Strided a, Words b, Sums c, Range&& words) {
  for (int64_t i = 0; i < m; i += Set::kRowBlock) {
    const int64_t rows = std::min(Set::kRowBlock, m - i);
    WordRange range = words(i, rows);
    if constexpr (Set::kTiles) range = Set::in_tiles(range, words(0, m).end);
    if (range.begin < range.end) multiply_some_rows<Set, true>(rows, n, range, a.from(i), b, c.from(i));
  }
}

// (columns × 64) = the transpose of `rows` ≤ 64 rows of e numbers or words, at row(i); columns is e in whole vectors,
// what lies beyond `rows` and e is 0.
template <class Set, typename T, typename Row>
void transpose_tile(int64_t rows, int64_t e, int64_t columns, float* to, Row&& row) {
  constexpr int64_t kAtOnce = Set::template kAtOnce<T>;
  for (int64_t i = 0; i < kTile; i += Set::kLanes) {
    for (int64_t j = 0; j < columns; j += kAtOnce) {
      typename Set::V block[Set::kLanes];
#pragma GCC unroll 16
      for (int64_t r = 0; r < Set::kLanes; ++r)
        block[r] = i + r < rows ? Set::at_once(row(i + r) + j, e - j) : Set::all(0);
      Set::transpose(block);
#pragma GCC unroll 16
      for (int64_t l = 0; l < kAtOnce; ++l) {
        if (kAtOnce == Set::kLanes || j + l < columns)
          Set::store(to + (j + l) * kTile + i, Set::template number<T>(block, l));
      }
    }
  }
}
// Of rows that lie one behind the other.
template <class Set>
void transpose_tile(const float* from, int64_t rows, int64_t columns, float* to) {
  transpose_tile<Set, float>(rows, columns, columns, to, [&](int64_t i) { return from + i * columns; });
}

template <class Set>
constexpr int64_t whole_vectors(int64_t words) {
  return (words + Set::kLanes - 1) / Set::kLanes * Set::kLanes;
}

// What a head of e numbers takes: as sums or single numbers, and as an operand whose sum's index runs over them.
template <class Set>
struct HeadWidths {
  explicit HeadWidths(int64_t head_dim)
      : e(head_dim),
        numbers(whole_vectors<Set>(e)),
        words((e + Set::kPair - 1) / Set::kPair),
        row(whole_vectors<Set>(words)) {}
  int64_t e, numbers, words, row;  // row: words with what lies behind them
};

// Rows of a head as operands along the head.
template <class Set, typename T, typename Row>
void load_rows(const T* data, int64_t pitch, int64_t column, int64_t rows, const HeadWidths<Set>& w, float* to,
               Row&& row) {
  for (int64_t i = 0; i < rows; ++i) Set::load_head(data + row(i) * pitch + column, w.e, w.row, to + i * w.row);
}

// The same rows as operands along the rows: words of numbers columns, `pairs` rows of them.
template <class Set>
void along_rows(const float* head_rows, int64_t rows, const HeadWidths<Set>& w, float* to) {
  static_assert(Set::kPair == 2);
  for (int64_t i = 0; i < rows; i += 2) {
    const float* second = i + 1 < rows ? head_rows + (i + 1) * w.row : nullptr;
    Set::interleave(head_rows + i * w.row, second, w.numbers, to + i / 2 * w.numbers);
  }
}

}  // namespace drover::cpu
