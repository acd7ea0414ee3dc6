// AVX-512: eight rows by three vectors of sixteen columns.
#include "kernels/cpu/attention_common.h"
#include "kernels/cpu/intrinsics.h"
#include "kernels/cpu/panel_kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

#include "kernels/cpu/panel_tile.h"
#include "kernels/cpu/vectors_avx512.h"

namespace drover::cpu::avx512 {

namespace {

struct Set : Vectors512 {
  static constexpr int64_t kPanelRows = 8, kPanelVectors = 3, kFewColumns = 64;
  static void store_panel_column(V v, float* to) { _mm256_storeu_ps(to, _mm512_castps512_ps256(v)); }
  // Numbers l … l + 15 of eight rows: those of one l next to each other.
  template <typename T>
  static void store_panel(const V (&rows)[kPanelRows], float* to) {
    V pairs[8], fours[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
      pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
      pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {  // fours[i + j]: of rows i … i + 3, a quarter each for l = j, j + 4, j + 8, j + 12
      fours[i] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
      fours[i + 1] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
      fours[i + 2] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
      fours[i + 3] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
    }
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23),
                  second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const V early = _mm512_permutex2var_ps(fours[j], first, fours[j + 4]),
              late = _mm512_permutex2var_ps(fours[j], second, fours[j + 4]);
      _mm256_storeu_ps(to + j * 8, _mm512_castps512_ps256(early));
      _mm256_storeu_ps(to + (j + 4) * 8, _mm512_extractf32x8_ps(early, 1));
      _mm256_storeu_ps(to + (j + 8) * 8, _mm512_castps512_ps256(late));
      _mm256_storeu_ps(to + (j + 12) * 8, _mm512_extractf32x8_ps(late, 1));
    }
  }
};

}  // namespace

constinit const PanelKernels kPanelKernels = panel_kernels<Set>();

}  // namespace drover::cpu::avx512

#pragma GCC pop_options
