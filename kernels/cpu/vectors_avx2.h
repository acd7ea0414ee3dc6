// AVX2's vectors: the names that attention_tile.h and panel_tile.h know, for eight numbers.
#pragma once
#include "kernels/cpu/attention_common.h"

namespace drover::cpu {

namespace {

struct Vectors256 {
  using V = Vec;
  static constexpr int64_t kLanes = 8;
  // An attention product's rows, and vectors of a row, at a time; by tiles of the CPU's.
  static constexpr int64_t kRowBlock = 6;
  static constexpr int kBlock = 2, kBlockOfFewRows = 4;
  static constexpr bool kTiles = false;

  // A tile's keys are read once in the order in which they lie, so that the CPU reads ahead of them by itself: on Zen 3
  // twice as fast as asking for the next tile's.
  static constexpr bool kBringsNextTile = false;
  static void bring(const void* line) { static_cast<void>(*static_cast<const volatile char*>(line)); }

  static V all(float v) { return _mm256_set1_ps(v); }
  static V load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, V v) { _mm256_storeu_ps(p, v); }
  static V add(V a, V b) { return _mm256_add_ps(a, b); }
  static V subtract(V a, V b) { return _mm256_sub_ps(a, b); }
  static V multiply(V a, V b) { return _mm256_mul_ps(a, b); }
  static V multiply_add(V a, V b, V sum) { return _mm256_fmadd_ps(a, b, sum); }
  static V max(V a, V b) { return _mm256_max_ps(a, b); }  // b where one is NaN
  static float highest(V v) { return cpu::max(v); }
  static float sum(V v) { return cpu::sum(v); }
  // The first n lanes of v, and `other` in the rest.
  static V first(int64_t n, V v, float other) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const int64_t lanes = std::clamp<int64_t>(n, 0, kLanes);
    const __m256i in = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(lanes)), lane);
    return _mm256_blendv_ps(all(other), v, _mm256_castsi256_ps(in));
  }
  static void transpose(V (&rows)[kLanes]) { cpu::transpose(rows); }

  // 2ˣ for x ≤ 127 within 2 ulp: 2ⁿ·q(x - n), q of degree 6 (minimax on |r| ≤ ½, 2e-9). 0 below -126; NaN stays NaN.
  static V exp2(V x) {
    const V n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), r = _mm256_sub_ps(x, n);
    V p = all(kExp2[6]);
    for (int i = 5; i >= 0; --i) p = _mm256_fmadd_ps(p, r, all(kExp2[i]));
    const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(_mm256_cmp_ps(x, all(-126), _CMP_LT_OQ), _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
  }

  template <typename T>
  static float dot(const T* a, const T* b, int64_t e) {
    V total = all(0);
    int64_t i = 0;
    for (; i + kLanes <= e; i += kLanes) total = multiply_add(cpu::load(a + i), cpu::load(b + i), total);
    float rest = 0;
    for (; i < e; ++i) rest += load_one(a + i) * load_one(b + i);
    return cpu::sum(total) + rest;
  }

  // Numbers [i, i + n) of a row, zeros behind them.
  template <typename T>
  static V numbers(const T* from, int64_t n) {
    if (n >= kLanes) return cpu::load(from);
    alignas(32) float some[kLanes] = {};
    for (int64_t i = 0; i < n; ++i) some[i] = load_one(from + i);
    return load(some);
  }
  // Of a row, what is transposed at once: a vector of numbers, or of bf16 one of words that are two numbers each.
  template <typename T>
  static constexpr int64_t kAtOnce = kLanes * (std::is_same_v<T, bf16> ? 2 : 1);
  static V at_once(const float* from, int64_t n) { return numbers(from, n); }
  static V at_once(const bf16* from, int64_t n) {
    if (n >= 2 * kLanes) return load(reinterpret_cast<const float*>(from));
    alignas(32) bf16 some[2 * kLanes] = {};
    std::copy_n(from, std::max<int64_t>(n, 0), some);
    return load(reinterpret_cast<const float*>(some));
  }
  // Number l of each row.
  template <typename T>
  static V number(const V (&transposed)[kLanes], int64_t l) {
    if constexpr (!std::is_same_v<T, bf16>) return transposed[l];
    const __m256i words = _mm256_castps_si256(transposed[l / 2]);
    return _mm256_castsi256_ps(l % 2 == 0 ? _mm256_slli_epi32(words, 16)
                                          : _mm256_and_si256(words, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
  }
  // The first n lanes, rounded.
  template <typename T>
  static void store_numbers(V v, int64_t n, T* to) {
    if (n >= kLanes) return cpu::store(to, v);
    alignas(32) float some[kLanes];
    store(some, v);
    for (int64_t i = 0; i < n; ++i) store_one(to + i, some[i]);
  }
};

}  // namespace

}  // namespace drover::cpu
