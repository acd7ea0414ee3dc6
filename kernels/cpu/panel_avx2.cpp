// AVX2: four rows by three vectors of eight columns.
#include "kernels/cpu/panel_tile.h"
#include "kernels/cpu/vectors_avx2.h"

namespace drover::cpu::avx2 {

namespace {

struct Set : Vectors256 {
  static constexpr int64_t kPanelRows = 4;
  static void store_panel_column(V v, float* to) { _mm_storeu_ps(to, _mm256_castps256_ps128(v)); }
  // Numbers l … l + 7 of four rows: those of one l next to each other.
  static void store_panel(const V (&rows)[kPanelRows], float* to) {
    const V low01 = _mm256_unpacklo_ps(rows[0], rows[1]), high01 = _mm256_unpackhi_ps(rows[0], rows[1]),
            low23 = _mm256_unpacklo_ps(rows[2], rows[3]), high23 = _mm256_unpackhi_ps(rows[2], rows[3]);
    const V fours[] = {_mm256_shuffle_ps(low01, low23, 0x44), _mm256_shuffle_ps(low01, low23, 0xee),
                       _mm256_shuffle_ps(high01, high23, 0x44), _mm256_shuffle_ps(high01, high23, 0xee)};
    for (int64_t l = 0; l < 4; ++l) {  // in their halves: l and l + 4
      _mm_storeu_ps(to + l * 4, _mm256_castps256_ps128(fours[l]));
      _mm_storeu_ps(to + (l + 4) * 4, _mm256_extractf128_ps(fours[l], 1));
    }
  }
};

}  // namespace

constinit const PanelKernels kPanelKernels = panel_kernels<Set>();

}  // namespace drover::cpu::avx2
