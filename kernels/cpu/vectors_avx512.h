// What AVX-512's sets share. To be included once in each of their files, behind the
// `#pragma GCC target` of the set; everything here is of the file alone.
#pragma once
#include "kernels/cpu/attention_common.h"

namespace drover::cpu {

namespace {

struct Vectors512 {
  using V = __m512;
  static constexpr int64_t kLanes = 16;
  // An attention product's rows, and vectors of a row, at a time; by tiles of the CPU's.
  static constexpr int64_t kRowBlock = 6;
  static constexpr int kBlock = 4, kBlockOfFewRows = 4;
  static constexpr bool kTiles = false;

  // The next tile's keys are asked for while this one's are multiplied.
  static constexpr bool kBringsNextTile = true;
  static void bring(const void* line) { _mm_prefetch(static_cast<const char*>(line), _MM_HINT_T0); }

  static V all(float v) { return _mm512_set1_ps(v); }
  static V load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V subtract(V a, V b) { return _mm512_sub_ps(a, b); }
  static V multiply(V a, V b) { return _mm512_mul_ps(a, b); }
  static V multiply_add(V a, V b, V sum) { return _mm512_fmadd_ps(a, b, sum); }
  static V max(V a, V b) { return _mm512_max_ps(a, b); }  // b where one is NaN
  static float highest(V v) { return _mm512_reduce_max_ps(v); }
  static float sum(V v) { return _mm512_reduce_add_ps(v); }
  static __mmask16 lanes(int64_t n) { return static_cast<__mmask16>((1u << (n < 0 ? 0 : n < 16 ? n : 16)) - 1); }
  // The first n lanes of v, and `other` in the rest.
  static V first(int64_t n, V v, float other) { return _mm512_mask_mov_ps(all(other), lanes(n), v); }

  // 2ˣ within 2 ulp: 2ⁿ·q(x - n). 0 below -126; NaN stays NaN.
  static V exp2(V x) {
    const V n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm512_sub_ps(x, n);
    V p = all(kExp2[6]);
#pragma GCC unroll 8
    for (int i = 5; i >= 0; --i) p = _mm512_fmadd_ps(p, r, all(kExp2[i]));
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, all(-126), _CMP_NLT_UQ), p, n);
  }

  // Row i, lane j becomes row j, lane i.
  static void transpose(V (&rows)[16]) {
    V a[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 2) {
      a[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
      a[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    V b[16];  // b[i + j]: of rows i … i+3, lanes j, j + 4, j + 8, j + 12
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
      b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
      b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xee);
      b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
      b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const V low = _mm512_shuffle_f32x4(b[j], b[j + 4], 0x88), high = _mm512_shuffle_f32x4(b[j], b[j + 4], 0xdd),
              low2 = _mm512_shuffle_f32x4(b[j + 8], b[j + 12], 0x88),
              high2 = _mm512_shuffle_f32x4(b[j + 8], b[j + 12], 0xdd);
      rows[j] = _mm512_shuffle_f32x4(low, low2, 0x88);
      rows[j + 8] = _mm512_shuffle_f32x4(low, low2, 0xdd);
      rows[j + 4] = _mm512_shuffle_f32x4(high, high2, 0x88);
      rows[j + 12] = _mm512_shuffle_f32x4(high, high2, 0xdd);
    }
  }

  // Numbers [i, i + n) of a row, zeros behind them.
  static V numbers(const float* from, int64_t n) { return _mm512_maskz_loadu_ps(lanes(n), from); }
  static V numbers(const bf16* from, int64_t n) {
    const __m512i half = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes(n), from));
    return reinterpret_cast<V>(_mm512_slli_epi32(half, 16));
  }
  // Of a row, what is transposed at once, and number l of each row behind that.
  template <typename T>
  static constexpr int64_t kAtOnce = kLanes;
  template <typename T>
  static V at_once(const T* from, int64_t n) {
    return numbers(from, n);
  }
  template <typename T>
  static V number(const V (&transposed)[kLanes], int64_t l) {
    return transposed[l];
  }
  // The first n lanes, rounded.
  static void store_numbers(V v, int64_t n, float* to) { _mm512_mask_storeu_ps(to, lanes(n), v); }
  static void store_numbers(V v, int64_t n, bf16* to) {
    const __m512i u = reinterpret_cast<__m512i>(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
    const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    rounded = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), quiet);
    _mm256_mask_storeu_epi16(to, lanes(n), _mm512_cvtepi32_epi16(rounded));
  }
  template <typename T>
  static float dot(const T* a, const T* b, int64_t e) {
    V total = all(0);
    for (int64_t i = 0; i < e; i += kLanes)
      total = _mm512_fmadd_ps(numbers(a + i, e - i), numbers(b + i, e - i), total);
    return sum(total);
  }
};

}  // namespace

}  // namespace drover::cpu
