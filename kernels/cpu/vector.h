// Eight floats at a time (AVX2 + FMA), with loads and stores from f32 and bf16; the arithmetic of all pointwise ops on
// the CPU.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <type_traits>

#include "kernels/base/bf16.h"

namespace drover::cpu {

using Vec = __m256;
inline constexpr int64_t kLanes = 8;

inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline Vec load(const bf16* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }

// What is no NaN, rounded to bf16: eight words of 32 bits.
inline __m256i rounded(Vec v) {
  const __m256i u = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  return _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd), 16);
}
inline void store(bf16* p, Vec v) {
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(_mm256_castps_si256(v), 16), _mm256_set1_epi32(0x40));
  const __m256i words = _mm256_blendv_epi8(rounded(v), quiet, nan);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}

// Sixteen numbers in the order in which bf16 is unpacked with the fewest instructions: 0–3 and 8–11, 4–7 and 12–15.
struct Pair {
  Vec first, second;
};
inline Pair unpacked(Vec low, Vec high) {
  return {_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)};
}
inline Pair load_pair(const float* p) { return unpacked(load(p), load(p + kLanes)); }
inline Pair load_pair(const bf16* p) {
  const __m256i zero = _mm256_setzero_si256(), u = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm256_castsi256_ps(_mm256_unpacklo_epi16(zero, u)), _mm256_castsi256_ps(_mm256_unpackhi_epi16(zero, u))};
}
inline void store_pair(float* p, Pair v) {
  const auto [low, high] = unpacked(v.first, v.second);
  store(p, low);
  store(p + kLanes, high);
}
inline void store_pair(bf16* p, Pair v) {
  if (_mm256_movemask_ps(_mm256_cmp_ps(v.first, v.second, _CMP_UNORD_Q)) != 0) [[unlikely]] {
    const auto [low, high] = unpacked(v.first, v.second);
    store(p, low);
    store(p + kLanes, high);
    return;
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_packus_epi32(rounded(v.first), rounded(v.second)));
}

inline float load_one(const float* p) { return *p; }
inline float load_one(const bf16* p) { return static_cast<float>(*p); }
inline void store_one(float* p, float v) { *p = v; }
inline void store_one(bf16* p, float v) { *p = bf16(v); }

inline float sum(Vec v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

inline float max(Vec v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

// An 8×8 block in place: row i, lane j becomes row j, lane i.
inline void transpose(Vec (&rows)[8]) {
  Vec a[8], b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      b[i + 2 * j] = _mm256_shuffle_ps(a[i + j], a[i + 2 + j], 0x44);
      b[i + 2 * j + 1] = _mm256_shuffle_ps(a[i + j], a[i + 2 + j], 0xee);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    rows[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    rows[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}

// eˣ within 2 ulp: x = n·ln 2 + r, 1 + r + r²·q(r) with q of degree 4 (minimax on |r| <= ln 2/2, 3e-9), times 2ⁿ.
// Flushes to 0 below -87.3 where results turn denormal; infinity above 88.37, where n is 128; NaN stays NaN (min and
// max return their second operand for it).
inline Vec exp(Vec x) {
  const Vec clamped = _mm256_min_ps(_mm256_set1_ps(88.5f), _mm256_max_ps(_mm256_set1_ps(-87.33654f), x));
  // Added to it, a number of at most 2²² is rounded to a whole one, which is in its lowest bits then.
  const Vec round = _mm256_set1_ps(0x1.8p23f), shifted = _mm256_fmadd_ps(clamped, _mm256_set1_ps(1.44269504f), round),
            n = _mm256_sub_ps(shifted, round);
  Vec r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), clamped);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  Vec p = _mm256_set1_ps(1.38145965e-3f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.36871751e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.16683890e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.66665211e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.99999940e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1));
  const __m256i exponent = _mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(127 - 0x4b400000));
  const Vec result = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
  return _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(-87.33654f), _CMP_LT_OQ), result);
}
inline float exp(float x) { return _mm256_cvtss_f32(exp(_mm256_set1_ps(x))); }

// y[i] = f(i-th values of the inputs) for a row of n: whole vectors, then a padded tail through the same vector code,
// so that a value does not depend on where in the row it stands. f takes numbers lane by lane.
template <typename F, typename Out, typename... In>
inline void map_row(int64_t n, F&& f, Out* y, const In*... x) {
  int64_t i = 0;
  if constexpr ((std::is_same_v<Out, bf16> || ... || std::is_same_v<In, bf16>)) {
    const auto both = [&](const auto&... v) { return Pair{f(v.first...), f(v.second...)}; };
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) store_pair(y + i, both(load_pair(x + i)...));
  }
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i)...));
  if (i == n) return;
  const int64_t rest = n - i;
  const auto tail = [&](const auto* p) {
    alignas(32) float buffer[kLanes] = {};
    for (int64_t j = 0; j < rest; ++j) buffer[j] = load_one(p + i + j);
    return load(buffer);
  };
  alignas(32) float out[kLanes];
  store(out, f(tail(x)...));
  for (int64_t j = 0; j < rest; ++j) store_one(y + i + j, out[j]);
}

}  // namespace drover::cpu
