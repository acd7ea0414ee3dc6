// AVX-512: sixteen lanes are a vector.
#include <algorithm>
#include <bit>

#include "kernels/cpu/intrinsics.h"
#include "kernels/cpu/row_kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

#include "kernels/cpu/row_pairs.h"
#include "kernels/cpu/row_tile.h"
#include "kernels/cpu/row_vectors_avx512.h"

namespace drover::cpu::avx512 {

namespace {

template <uint8_t top>
struct Fp8Words {
  __m512i first, second;
  explicit Fp8Words(__m512i codes) {
    const __m512i zero = _mm512_setzero_si512();
    first = words(_mm512_unpacklo_epi8(zero, codes)), second = words(_mm512_unpackhi_epi8(zero, codes));
  }
  static __m512i words(__m512i shifted) {
    const __m512i bits = _mm512_srai_epi16(shifted, 4), kept = words_with(0x87f087f0u);
    if constexpr (top == 0) return _mm512_and_si512(bits, kept);
    return _mm512_ternarylogic_epi32(bits, kept, words_with(uint32_t{top} << 24 | uint32_t{top} << 8), kMaskedOr);
  }
};

template <typename Row>
struct Widened;
template <Scales scales>
struct Widened<Fp8Row<scales>> : Fp8Block<scales, Fp8Words> {};

// A block in the order of kNf4Order512. An index is the four lowest bits of a word: the others are not looked at.
template <bool narrow>
struct Widened<Nf4Row<narrow>> {
  __m512i words;  // the eight of the block, twice
  __m512 levels;  // multiplied
  void begin_block(const Nf4Row<narrow>& row, int64_t i, int64_t block) {
    ask_for(row.codes + i / 2);
    words = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row.codes + i / 2)));
    levels = _mm512_mul_ps(_mm512_loadu_ps(kNf4Levels.data()), _mm512_set1_ps(row.absmax[block]));
    if constexpr (narrow) levels = rounded_to_bf16(levels);
  }
  __m512 load(int v) const {
    const __m512i shift = _mm512_inserti64x4(_mm512_set1_epi32(4 * v), _mm256_set1_epi32(4 * v + 16), 1);
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(words, shift), levels);
  }
};

struct Set : Vectors16 {
  template <typename Row>
  using Widened = avx512::Widened<Row>;
};

// The sums of R rows, whose chains run side by side, and at most sixteen outputs; turned[i] is the number i of each
// output.
template <int R>
struct Thin {
  static void add(const RowsTimesRows<float, bf16>& p, const __m512* turned) {
    __m512 chains[R];
    for (__m512& chain : chains) chain = _mm512_setzero_ps();
    for (int64_t i = 0; i < p.k; ++i) {
#pragma GCC unroll 4
      for (int t = 0; t < R; ++t) chains[t] = _mm512_fmadd_ps(_mm512_set1_ps(p.x.row(t)[i]), turned[i], chains[t]);
    }
    const __mmask16 some = Set::first(p.outputs);
    for (int t = 0; t < R; ++t) {
      float* to = p.sums + t * p.pitch;
      _mm512_mask_storeu_ps(to, some, _mm512_add_ps(_mm512_maskz_loadu_ps(some, to), chains[t]));
    }
  }
};

template <int R>
using Cached = CachedTile<Set, R, 4>;
template <int R>
using Streamed = StreamedTile<Set, R>;

}  // namespace

void add_thin(const RowsTimesRows<float, bf16>& p) {
  __m512i pairs[kThinPairs + kPairs];
  __m512 turned[kThin + 1];
  for (int64_t o = 0; o < p.outputs; o += kOutputs) {
    const int64_t n = std::min(kOutputs, p.outputs - o);
    turn(p.w.from(o), n, p.k, pairs);
    for (int64_t i = 0; i < p.k; i += 2) {
      turned[i] = reinterpret_cast<__m512>(_mm512_slli_epi32(pairs[i / 2], 16));
      turned[i + 1] = reinterpret_cast<__m512>(_mm512_and_si512(pairs[i / 2], words_with(0xffff0000u)));
    }
    add_turned<Thin>(p.part(0, p.rows, o, n), turned);
  }
}

void add_cached(const RowsTimesRows<float, float>& p) { add_tiles_along_x<Cached, 6>(p); }

template <typename WRows>
void add_streamed(const Streams<float, WRows>& p) {
  add_tiles_along_w<Streamed, 4>(p);
}
template void add_streamed(const Streams<float, Rows<float>>&);
template void add_streamed(const Streams<float, Rows<bf16>>&);
template void add_streamed(const Streams<float, Fp8Rows<Scales::any>>&);
template void add_streamed(const Streams<float, Fp8Rows<Scales::rounded>>&);
template void add_streamed(const Streams<float, Fp8Rows<Scales::powers>>&);
template void add_streamed(const Streams<float, Nf4Rows<false>>&);
template void add_streamed(const Streams<float, Nf4Rows<true>>&);

template <typename WRows>
void widen(const WRows& w, int64_t rows, int64_t k, float* to, int64_t pitch) {
  widen_rows<Set>(w, rows, k, to, pitch);
}
template void widen(const Fp8Rows<Scales::any>&, int64_t, int64_t, float*, int64_t);
template void widen(const Fp8Rows<Scales::rounded>&, int64_t, int64_t, float*, int64_t);
template void widen(const Fp8Rows<Scales::powers>&, int64_t, int64_t, float*, int64_t);
template void widen(const Nf4Rows<false>&, int64_t, int64_t, float*, int64_t);
template void widen(const Nf4Rows<true>&, int64_t, int64_t, float*, int64_t);

}  // namespace drover::cpu::avx512

#pragma GCC pop_options
