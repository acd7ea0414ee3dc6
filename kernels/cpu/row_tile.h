// What every instruction set shares of RowProduct's inner loops. To be included once in each of its files, behind the
// `#pragma GCC target` of the set: `Set` is a type of the file's own, in a namespace of the file's own (GCC makes weak
// functions of templates whose arguments are templates, by their names), so that no function here is shared between
// sets. A Set has vectors of kValues numbers, of which kVectors make the sixteen lanes of a chain, and registers for
// kChains vectors of sums.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/row_kernels.h"

namespace drover::cpu {

// Weights that are read once come from memory while what came before is multiplied; by itself a CPU asks for them too
// late, and not across the border of a page. What lies behind the last ones is not read.
template <typename T>
[[gnu::always_inline]] inline void ask_for(const T* weights) {
  constexpr int64_t kBytesAhead = 3072;
  _mm_prefetch(reinterpret_cast<const char*>(weights) + kBytesAhead, _MM_HINT_T0);
}

enum class From : uint8_t { cache, memory };  // where weights come from

template <class Set>
struct Chain {
  typename Set::Sum part[Set::kVectors];
};

template <class Set, int R, int O>
[[gnu::always_inline]] inline void clear_chains(Chain<Set> (&chains)[R][O]) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
#pragma GCC unroll 2
      for (int v = 0; v < Set::kVectors; ++v) chains[r][o].part[v] = Set::zero();
    }
  }
}

// How many streams have their chains in registers at once; half of those are for what widens codes.
template <class Set, int R, typename Row>
constexpr int streams_at_once() {
  constexpr int kFit = Set::kChains / (kCoded<Row> ? 2 : 1) / (R * Set::kVectors);
  return kFit >= 4 ? 4 : kFit >= 2 ? 2 : 1;
}

// chains[r][o] = Σ_i x[r][i]·w[o][i], lane by lane, of rows of codes, which Set::Widened<Row> widens in the registers.
// k is a multiple of kCodedBlock.
template <class Set, int R, int O, From, typename Row>
  requires kCoded<Row>
[[gnu::always_inline]] inline void sum_chains(Rows<typename Set::X> x, const Row (&w)[O], int64_t k,
                                              Chain<Set> (&chains)[R][O]) {
  clear_chains<Set>(chains);
  for (int64_t i = 0; i < k; i += kCodedBlock) {
    const int64_t block = w[0].block(i);  // in all rows
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) {
      typename Set::template Widened<Row> widened;
      widened.begin_block(w[o], i, block);
#pragma GCC unroll 8
      for (int v = 0; v < kCodedBlock / Set::kValues; ++v) {
        const typename Set::Operand weights = widened.load(v);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          typename Set::Sum& sum = chains[r][o].part[v % Set::kVectors];
          sum = Set::multiply_add(Set::load(x.row(r) + i + v * Set::kValues), weights, sum);
        }
      }
    }
  }
}

// The same of numbers, for any k.
template <class Set, int R, int O, From from, typename W>
[[gnu::always_inline]] inline void sum_chains(Rows<typename Set::X> x, const W* const (&w)[O], int64_t k,
                                              Chain<Set> (&chains)[R][O]) {
  clear_chains<Set>(chains);
  // The products of n indices from i on, which are the vector v of the lanes.
  const auto add = [&](int v, int64_t i, int64_t n) __attribute__((always_inline)) {
    const auto load = [&](const auto* row) __attribute__((always_inline)) {
      return n == Set::kValues ? Set::load(row + i) : Set::load_some(row + i, n);
    };
    typename Set::Operand xs[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) xs[r] = load(x.row(r));
#pragma GCC unroll 8
    for (int o = 0; o < O; ++o) {
      const typename Set::Operand weights = load(w[o]);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) chains[r][o].part[v] = Set::multiply_add(xs[r], weights, chains[r][o].part[v]);
    }
  };
  constexpr int64_t kLanes = Set::kVectors * Set::kValues;
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    if constexpr (from == From::memory) {
#pragma GCC unroll 4
      for (int o = 0; o < O; ++o) ask_for(w[o] + i);
    }
#pragma GCC unroll 2
    for (int v = 0; v < Set::kVectors; ++v) add(v, i + v * Set::kValues, Set::kValues);
  }
#pragma GCC unroll 2
  for (int v = 0; v < Set::kVectors; ++v, i += Set::kValues) {
    if (i < k) add(v, i, std::min(k - i, Set::kValues));
  }
}

// to[o] += the sum of eight lanes, for four outputs of which the first `outputs` count.
template <class Set>
inline void add_lanes(const __m256 (&lanes)[4], int64_t outputs, float* to) {
  const __m256 halves = _mm256_hadd_ps(_mm256_hadd_ps(lanes[0], lanes[1]), _mm256_hadd_ps(lanes[2], lanes[3]));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
  if (outputs >= 4) {
    _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), four));
  } else {
    alignas(16) float values[4];
    _mm_store_ps(values, four);
    for (int64_t o = 0; o < outputs; ++o) to[o] += values[o];
  }
}

// A block of the sum's index for R rows and four outputs, O of them at a time.
template <class Set, int R, int O>
struct CachedTile {
  template <typename W>
  static void add(const RowsTimesRows<typename Set::X, W>& p) {
    __m256 lanes[R][4];
#pragma GCC unroll 4
    for (int o = 0; o < 4; o += O) {
      Chain<Set> chains[R][O];
      const W* ws[O];
#pragma GCC unroll 4
      for (int j = 0; j < O; ++j) ws[j] = p.w.row(std::min<int64_t>(o + j, p.outputs - 1));
      sum_chains<Set, R, O, From::cache>(p.x, ws, p.k, chains);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int j = 0; j < O; ++j) lanes[r][o + j] = Set::fold(chains[r][j].part);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) add_lanes<Set>(lanes[r], p.outputs, p.sums + r * p.pitch);
  }
};

// All blocks for R rows and four outputs of each stream, of each a row of w after the other.
template <class Set, int R>
struct StreamedTile {
  static constexpr int64_t kDepth = cpu::kDepth<typename Set::X>;
  // Of a row of w before the next one's turn: long runs come faster from memory, unless x no longer stays in the cache.
  static constexpr int64_t kBlocks = R <= 2 ? 8 : 2;
  template <typename WRows>
  static void add(const Streams<typename Set::X, WRows>& p) {
    using Row = std::remove_cv_t<decltype(p[0].w.row(0))>;
    constexpr int kAtOnce = streams_at_once<Set, R, Row>();
    __m256 lanes[kStreams][kBlocks][R][4];
    const int64_t outputs = std::min<int64_t>(p[0].outputs, 4);
    if (outputs < 4) std::memset(lanes, 0, sizeof lanes);
    for (int64_t begin = 0; begin < p[0].k; begin += kBlocks * kDepth) {
      const int64_t end = std::min(begin + kBlocks * kDepth, p[0].k);
      for (int64_t o = 0; o < outputs; ++o) {
        Row rows[kStreams];
#pragma GCC unroll 4
        for (int s = 0; s < kStreams; ++s) {
          const auto& stream = p[p[s].outputs > 0 ? s : 0];
          rows[s] = stream.w.row(std::min(o, stream.outputs - 1));
        }
#pragma GCC unroll 4
        for (int s = 0; s < kStreams; s += kAtOnce) {
          for (int64_t i = begin; i < end; i += kDepth) {
            Chain<Set> chains[R][kAtOnce];
            Row ws[kAtOnce];
#pragma GCC unroll 4
            for (int j = 0; j < kAtOnce; ++j) ws[j] = from(rows[s + j], i);
            sum_chains<Set, R, kAtOnce, From::memory>(p[0].x.at(i), ws, std::min(kDepth, end - i), chains);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
              for (int j = 0; j < kAtOnce; ++j) {
                lanes[s + j][(i - begin) / kDepth][r][o] = Set::fold(chains[r][j].part);
              }
            }
          }
        }
      }
      for (int s = 0; s < kStreams && p[s].outputs > 0; ++s) {
        for (int64_t block = 0; begin + block * kDepth < end; ++block) {
          for (int r = 0; r < R; ++r) add_lanes<Set>(lanes[s][block][r], p[s].outputs, p[s].sums + r * p[s].pitch);
        }
      }
    }
  }
};

// The tile for as many rows as there are, at most R.
template <template <int> class Tile, int R, typename... P>
inline void add_tile(int64_t rows, const P&... p) {
  if constexpr (R > 1) {
    if (rows < R) return add_tile<Tile, R - 1>(rows, p...);
  }
  Tile<R>::add(p...);
}

// All tiles, four outputs of each stream after the other.
template <template <int> class Tile, int R, typename X, typename WRows>
inline void add_tiles_along_w(const Streams<X, WRows>& p) {
  for (int64_t o = 0; o < p[0].outputs; o += 4) {
    for (int64_t t = 0; t < p[0].rows; t += R) {
      Streams<X, WRows> part = p;
      for (auto& stream : part) stream = stream.part(t, R, std::min(o, stream.outputs), 4);
      add_tile<Tile, R>(p[0].rows - t, part);
    }
  }
}

// All rows of a few outputs whose weights were turned so that every lane is an output.
template <template <int> class Thin, typename P, typename T>
inline void add_turned(const P& p, const T* turned) {
  constexpr int kRows = 4;  // whose chains run side by side
  for (int64_t t = 0; t < p.rows; t += kRows) {
    add_tile<Thin, kRows>(p.rows - t, p.part(t, kRows, 0, p.outputs), turned);
  }
}

// The values of rows of codes as Set::Widened<Row> gives them.
template <class Set, typename WRows>
inline void widen_rows(const WRows& w, int64_t rows, int64_t k, float* to, int64_t pitch) {
  for (int64_t r = 0; r < rows; ++r) {
    const auto row = w.row(r);
    for (int64_t i = 0; i < k; i += kCodedBlock) {
      typename Set::template Widened<std::remove_cv_t<decltype(row)>> widened;
      widened.begin_block(row, i, row.block(i));
#pragma GCC unroll 8
      for (int v = 0; v < kCodedBlock / Set::kValues; ++v) {
        Set::store(to + r * pitch + i + v * Set::kValues, widened.load(v));
      }
    }
  }
}

// All tiles, R rows of x after the other.
template <template <int> class Tile, int R, typename P>
inline void add_tiles_along_x(const P& p) {
  for (int64_t t = 0; t < p.rows; t += R) {
    for (int64_t o = 0; o < p.outputs; o += 4) add_tile<Tile, R>(p.rows - t, p.part(t, R, o, 4));
  }
}

}  // namespace drover::cpu
