// AVX2: six rows by two vectors of eight columns, which take fewer loads and broadcasts for a product than four by
// three.
#include "kernels/cpu/panel_tile.h"
#include "kernels/cpu/vectors_avx2.h"

namespace drover::cpu::avx2 {

namespace {

struct Set : Vectors256 {
  static constexpr int64_t kPanelRows = 6, kPanelVectors = 2, kFewColumns = 8;
  static void store_panel_column(V v, float* to) {
    _mm_storeu_ps(to, _mm256_castps256_ps128(v));
    _mm_storel_pi(reinterpret_cast<__m64*>(to + 4), _mm256_extractf128_ps(v, 1));
  }
  // Numbers l, l + 1, … of six rows: those of one l next to each other.
  template <typename T>
  static void store_panel(const V (&rows)[kPanelRows], float* to) {
    constexpr int64_t kLast = kAtOnce<T> - 1;
    V block[kLanes] = {rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], all(0), all(0)};
    transpose(block);
#pragma GCC unroll 16
    for (int64_t l = 0; l < kLast; ++l) store(to + l * kPanelRows, number<T>(block, l));  // the next overwrites zeros
    store_panel_column(number<T>(block, kLast), to + kLast * kPanelRows);
  }
};

}  // namespace

constinit const PanelKernels kPanelKernels = panel_kernels<Set>();

}  // namespace drover::cpu::avx2
