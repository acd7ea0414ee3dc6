// AVX-512: sixteen lanes are a vector.
#include <algorithm>

#include "kernels/cpu/intrinsics.h"
#include "kernels/cpu/row_kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

#include "kernels/cpu/row_pairs.h"
#include "kernels/cpu/row_tile.h"

namespace drover::cpu::avx512 {

namespace {

template <typename Row>
struct Widened;

__m512 rounded_to_bf16(__m512 v) {  // not of NaN
  const __m512i u = reinterpret_cast<__m512i>(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
  return reinterpret_cast<__m512>(_mm512_and_si512(sum, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

constexpr int kMaskedOr = 0xea;  // of three operands: (a & b) | c
constexpr float kRaised = kFp8Order512.factor;
__m512i words_with(uint32_t bits) { return _mm512_set1_epi32(static_cast<int>(bits)); }

// 1 / kRaised of e4m3's numbers, whose bits stand where fp32 has them, with anything below: one more bit of the
// exponent keeps them from being denormal in fp32.
__m512 normal_numbers(__m512i bits) {
  return reinterpret_cast<__m512>(
      _mm512_ternarylogic_epi32(bits, words_with(0x87f00000u), words_with(0x38000000u), kMaskedOr));
}

// The same where some have an exponent of 0: those are ±m · 2⁻⁹.
__m512 all_numbers(__m512i bits) {
  const __m512i m = _mm512_and_si512(_mm512_srli_epi32(bits, 20), words_with(7));
  const __m512 magnitude = _mm512_mul_ps(_mm512_cvtepi32_ps(m), _mm512_set1_ps(0x1p-9f / kRaised));
  const __m512i small =
      _mm512_ternarylogic_epi32(bits, words_with(0x80000000u), reinterpret_cast<__m512i>(magnitude), kMaskedOr);
  const __mmask16 denormal = _mm512_testn_epi32_mask(bits, words_with(0x07800000u));
  return _mm512_mask_mov_ps(normal_numbers(bits), denormal, reinterpret_cast<__m512>(small));
}

// A block in the order of kFp8Order512.
template <bool narrow>
struct Widened<Fp8Row<narrow>> {
  __m512 values[4];
  void begin_block(const Fp8Row<narrow>& row, int64_t i) {
    const uint8_t* codes = row.codes + i;
    ask_for(codes);
    const __m512 scale = _mm512_set1_ps(row.scale(i));
    const bool denormal = _mm512_testn_epi8_mask(_mm512_loadu_si512(codes), _mm512_set1_epi8(0x78)) != 0;
    denormal ? widen(codes, scale, all_numbers) : widen(codes, scale, normal_numbers);
  }
  __m512 load(int v) const { return values[v]; }

 private:
  template <typename F>
  [[gnu::always_inline]] void widen(const uint8_t* codes, __m512 scale, const F& numbers) {
    for (int half = 0; half < 2; ++half) {
      const auto* at = reinterpret_cast<const __m256i*>(codes + half * 32);
      const __m512i pairs = _mm512_cvtepi8_epi16(_mm256_loadu_si256(at));  // two codes a word, signs above each
      values[2 * half] = scaled(numbers(_mm512_slli_epi32(pairs, 20)), scale);
      values[2 * half + 1] = scaled(numbers(_mm512_slli_epi32(pairs, 4)), scale);
    }
  }
  static __m512 scaled(__m512 numbers, __m512 scale) {
    const __m512 values = _mm512_mul_ps(numbers, scale);
    return narrow ? rounded_to_bf16(values) : values;
  }
};

// A block in the order of kNf4Order512. An index is the four lowest bits of a word: the others are not looked at.
template <bool narrow>
struct Widened<Nf4Row<narrow>> {
  __m512i words;  // the eight of the block, twice
  __m512 levels;  // multiplied
  void begin_block(const Nf4Row<narrow>& row, int64_t i) {
    ask_for(row.codes + i / 2);
    words = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row.codes + i / 2)));
    levels = _mm512_mul_ps(_mm512_loadu_ps(kNf4Levels.data()), _mm512_set1_ps(row.absmax[i / kNf4Block]));
    if constexpr (narrow) levels = rounded_to_bf16(levels);
  }
  __m512 load(int v) const {
    const __m512i shift = _mm512_inserti64x4(_mm512_set1_epi32(4 * v), _mm256_set1_epi32(4 * v + 16), 1);
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(words, shift), levels);
  }
};

struct Set {
  using X = float;
  using Operand = __m512;
  using Sum = __m512;
  static constexpr int64_t kValues = 16;
  static constexpr int kVectors = 1;
  static constexpr int kChains = 16;
  template <typename Row>
  using Widened = avx512::Widened<Row>;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Operand load(const float* p) { return _mm512_loadu_ps(p); }
  static Operand load(const bf16* p) { return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static Operand load_some(const bf16* p, int64_t n) { return widened(_mm256_maskz_loadu_epi16(first(n), p)); }
  static Operand load_some(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store(float* to, Operand v) { _mm512_storeu_ps(to, v); }
  static __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  static Operand widened(__m256i v) {
    return reinterpret_cast<__m512>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
  }
  static Sum multiply_add(Operand x, Operand w, Sum sum) { return _mm512_fmadd_ps(x, w, sum); }
  static __m256 fold(const Sum (&part)[kVectors]) {
    return _mm256_add_ps(_mm512_castps512_ps256(part[0]), _mm512_extractf32x8_ps(part[0], 1));
  }
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
template void add_streamed(const Streams<float, Fp8Rows<false>>&);
template void add_streamed(const Streams<float, Fp8Rows<true>>&);
template void add_streamed(const Streams<float, Nf4Rows<false>>&);
template void add_streamed(const Streams<float, Nf4Rows<true>>&);

template <typename WRows>
void widen(const WRows& w, int64_t rows, int64_t k, float* to, int64_t pitch) {
  widen_rows<Set>(w, rows, k, to, pitch);
}
template void widen(const Fp8Rows<false>&, int64_t, int64_t, float*, int64_t);
template void widen(const Fp8Rows<true>&, int64_t, int64_t, float*, int64_t);
template void widen(const Nf4Rows<false>&, int64_t, int64_t, float*, int64_t);
template void widen(const Nf4Rows<true>&, int64_t, int64_t, float*, int64_t);

}  // namespace drover::cpu::avx512

#pragma GCC pop_options
