// Attention's operands of bf16 numbers, two in a word, for AVX-512-BF16 and AMX. To be included once in each of their
// files, behind the `#pragma GCC target` of the set; everything here is of the file alone.
#pragma once
#include "kernels/cpu/vectors_avx512.h"

namespace drover::cpu {

namespace {

struct PairsOfBf16 : Vectors512 {
  static constexpr int64_t kPair = 2;
  static V multiply_add(V a, V b, V sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  static __m512i rounded(V low, V high) { return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)); }
  static void store_operand(const V (&row)[kTile / kLanes], float* to) {
#pragma GCC unroll 2
    for (int64_t v = 0; v < kTile / kLanes; v += 2)
      _mm512_storeu_si512(to + v / 2 * kLanes, rounded(row[v], row[v + 1]));
  }
  static void round_row(float* row) {
    const V numbers[] = {load(row), load(row + kLanes), load(row + 2 * kLanes), load(row + 3 * kLanes)};
    store_operand(numbers, row);
  }
  static void load_head(const bf16* from, int64_t e, int64_t row, float* to) {
    for (int64_t i = 0; i < 2 * row; i += 2 * kLanes) {
      const int64_t n = e - i < 0 ? 0 : e - i < 32 ? e - i : 32;
      const auto in = static_cast<__mmask32>((uint64_t{1} << n) - 1);
      _mm512_storeu_si512(to + i / 2, _mm512_maskz_loadu_epi16(in, from + i));
    }
  }
  // Words of two rows' numbers, the first row's in the lower half; without a second one: zeros.
  static void interleave(const float* first, const float* second, int64_t numbers, float* to) {
    for (int64_t j = 0; j < numbers; j += kLanes) {
      const auto half = [&](const float* row) {
        return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + j / 2)));
      };
      __m512i words = half(first);
      if (second != nullptr) words = _mm512_or_si512(words, _mm512_slli_epi32(half(second), 16));
      _mm512_storeu_si512(to + j, words);
    }
  }
  // The same of two rows of a tile in fp32.
  static void interleave_rounded(const float* first, const float* second, float* to) {
    for (int64_t j = 0; j < kTile; j += kLanes) {
      const auto half = [&](const float* row) {
        return _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(load(row + j))));
      };
      __m512i words = half(first);
      if (second != nullptr) words = _mm512_or_si512(words, _mm512_slli_epi32(half(second), 16));
      _mm512_storeu_si512(to + j, words);
    }
  }
};

}  // namespace

}  // namespace drover::cpu
