// Rows of bf16 turned to vectors of neighbouring pairs, sixteen rows at a time (AVX-512). To be included once in each
// file of such a set, behind its `#pragma GCC target`; everything here is of the file alone.
#pragma once
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/row_kernels.h"

namespace drover::cpu {

namespace {

constexpr int64_t kOutputs = 16;  // of a block of w
constexpr int64_t kPairs = 4;     // of neighbouring numbers of a row, in an eighth of a vector
constexpr int64_t kThinPairs = kThin / 2;

__mmask8 first(int64_t n) { return static_cast<__mmask8>((1u << std::clamp<int64_t>(n, 0, 8)) - 1); }

// Eight numbers of a row from `i` on, as far as there are any.
__m128i eight(const bf16* row, int64_t i, int64_t k) {
  return k - i >= 8 ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + i))
                    : _mm_maskz_loadu_epi16(first(k - i), row + i);
}

// pairs[p] = the pair p of each of sixteen rows of w, of which the last one is repeated where there are fewer.
void turn(const Rows<bf16>& w, int64_t rows_of_w, int64_t k, __m512i* pairs) {
  for (int64_t i = 0; i < k; i += 2 * kPairs) {
    __m512i rows[4];  // of rows j, j + 4, j + 8, j + 12
    for (int64_t j = 0; j < 4; ++j) {
      const auto row = [&](int64_t at) { return eight(w.row(std::min(at, rows_of_w - 1)), i, k); };
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

}  // namespace

}  // namespace drover::cpu
