// AVX-512 with BF16.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/row_kernels.h"

// GCC's own intrinsics begin with vectors whose value is meant to be undefined.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

#include "kernels/cpu/row_tile.h"

namespace drover::cpu::avx512_bf16 {

namespace {

template <typename Row>
struct Widened;

// As load_fp8 of dequantise_lanes.h.
template <>
struct Widened<Fp8Row<true>> {
  __m512 scale;
  void begin_block(const Fp8Row<true>& row, int64_t i) { scale = _mm512_set1_ps(row.scale(i) * 0x1p8f); }
  __m512i load(const Fp8Row<true>& row, int64_t i) const {
    const __m512i code = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row.codes + i)));
    const __m512i kept = _mm512_set1_epi16(static_cast<int16_t>(0xbf80));
    const __m512i half = _mm512_and_si512(_mm512_slli_epi16(code, 7), kept);
    const __m512 low = _mm512_mul_ps(_mm512_cvtph_ps(_mm512_castsi512_si256(half)), scale),
                 high = _mm512_mul_ps(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(half, 1)), scale);
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
  }
};

// The levels, multiplied and rounded, stand in the table twice: the fifth bit of an index, which is the neighbour's,
// makes no difference.
template <>
struct Widened<Nf4Row<true>> {
  __m512i table;
  void begin_block(const Nf4Row<true>& row, int64_t i) {
    const __m512 value = _mm512_mul_ps(_mm512_loadu_ps(kNf4Levels.data()), _mm512_set1_ps(row.absmax[i / kNf4Block]));
    table = _mm512_broadcast_i64x4(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
  }
  __m512i load(const Nf4Row<true>& row, int64_t i) const {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row.codes + i / 2));
    const __m512i pair = _mm512_cvtepu8_epi32(bytes);
    return _mm512_permutexvar_epi16(_mm512_or_si512(_mm512_srli_epi32(pair, 4), _mm512_slli_epi32(pair, 16)), table);
  }
};

struct Set {
  using X = bf16;
  using Operand = __m512i;
  using Sum = __m512;
  static constexpr int64_t kValues = 32;
  static constexpr int kVectors = 1;
  template <typename Row>
  using Widened = avx512_bf16::Widened<Row>;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Operand load(const bf16* p) { return _mm512_loadu_si512(p); }
  static Operand load_some(const bf16* p, int64_t n) {
    return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << n) - 1), p);
  }
  static Sum multiply_add(Operand x, Operand w, Sum sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
  }
  static __m256 fold(const Sum (&part)[kVectors]) {
    return _mm256_add_ps(_mm512_castps512_ps256(part[0]), _mm512_extractf32x8_ps(part[0], 1));
  }
};

constexpr int64_t kOutputs = 16;  // of a block of w
constexpr int64_t kPairs = 4;     // of neighbouring numbers of a row, in an eighth of a vector
constexpr int64_t kThinPairs = kThin / 2;

__mmask8 first(int64_t n) { return static_cast<__mmask8>((1u << std::clamp<int64_t>(n, 0, 8)) - 1); }

// Eight numbers of a row from `i` on, as far as there are any.
__m128i eight(const bf16* row, int64_t i, int64_t k) {
  return k - i >= 8 ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + i))
                    : _mm_maskz_loadu_epi16(first(k - i), row + i);
}

// pairs[p] = the pair p of each of sixteen rows of w, of which the last ones are repeated where there are fewer.
void turn(const RowsTimesRows<bf16, bf16>& p, int64_t output, __m512i* pairs) {
  for (int64_t i = 0; i < p.k; i += 2 * kPairs) {
    __m512i rows[4];  // of rows j, j + 4, j + 8, j + 12
    for (int64_t j = 0; j < 4; ++j) {
      const auto row = [&](int64_t at) { return eight(p.w.row(std::min(output + at, p.outputs - 1)), i, p.k); };
      const __m256i low = _mm256_set_m128i(row(j + 4), row(j)), high = _mm256_set_m128i(row(j + 12), row(j + 8));
      rows[j] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    const __m512i a = _mm512_unpacklo_epi32(rows[0], rows[1]), b = _mm512_unpackhi_epi32(rows[0], rows[1]),
                  c = _mm512_unpacklo_epi32(rows[2], rows[3]), d = _mm512_unpackhi_epi32(rows[2], rows[3]);
    __m512i* to = pairs + i / 2;
    to[0] = _mm512_unpacklo_epi64(a, c), to[1] = _mm512_unpackhi_epi64(a, c);
    to[2] = _mm512_unpacklo_epi64(b, d), to[3] = _mm512_unpackhi_epi64(b, d);
  }
}

template <int R>
using Cached = CachedTile<Set, R, 4>;
template <int R>
using Streamed = StreamedTile<Set, R>;

}  // namespace

void add_thin(const RowsTimesRows<bf16, bf16>& p) {
  __m512i pairs[kThinPairs + kPairs];
  const int64_t count = (p.k + 1) / 2;
  for (int64_t o = 0; o < p.outputs; o += kOutputs) {
    turn(p, o, pairs);
    const auto some = static_cast<__mmask16>((1u << std::min(kOutputs, p.outputs - o)) - 1);
    for (int64_t t = 0; t < p.rows; ++t) {
      alignas(64) bf16 x[kThin + 1] = {};
      std::copy_n(p.x.row(t), p.k, x);
      __m512 chain = _mm512_setzero_ps();
      for (int64_t i = 0; i < count; ++i) {
        int32_t pair;
        std::memcpy(&pair, x + 2 * i, sizeof pair);
        chain = _mm512_dpbf16_ps(chain, reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)),
                                 reinterpret_cast<__m512bh>(pairs[i]));
      }
      float* to = p.sums + t * p.pitch + o;
      _mm512_mask_storeu_ps(to, some, _mm512_add_ps(_mm512_maskz_loadu_ps(some, to), chain));
    }
  }
}

void add_cached(const RowsTimesRows<bf16, bf16>& p) { add_tiles_along_x<Cached, 6>(p); }
template <typename WRows>
void add_streamed(const RowsTimes<bf16, WRows>& p, const RowsTimes<bf16, WRows>& q) {
  add_tiles_along_w<Streamed, 4>(p, q);
}
template void add_streamed(const RowsTimesRows<bf16, bf16>&, const RowsTimesRows<bf16, bf16>&);
template void add_streamed(const RowsTimes<bf16, Fp8Rows<true>>&, const RowsTimes<bf16, Fp8Rows<true>>&);
template void add_streamed(const RowsTimes<bf16, Nf4Rows<true>>&, const RowsTimes<bf16, Nf4Rows<true>>&);

}  // namespace drover::cpu::avx512_bf16

#pragma GCC pop_options
