// AVX-512. Weights that come from memory are left to the AVX2 loops, which read them faster.
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/row_kernels.h"

// GCC's own intrinsics begin with vectors whose value is meant to be undefined.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

#include "kernels/cpu/row_tile.h"

namespace drover::cpu::avx512 {

namespace {

struct Set {
  using X = float;
  using Operand = __m512;
  using Sum = __m512;
  static constexpr int64_t kValues = 16;
  static constexpr int kVectors = 1;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Operand load(const float* p) { return _mm512_loadu_ps(p); }
  static Operand load_some(const float* p, int64_t n) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
  }
  static Sum multiply_add(Operand x, Operand w, Sum sum) { return _mm512_fmadd_ps(x, w, sum); }
  static __m256 fold(const Sum (&part)[kVectors]) {
    return _mm256_add_ps(_mm512_castps512_ps256(part[0]), _mm512_extractf32x8_ps(part[0], 1));
  }
};

template <int R>
using Cached = CachedTile<Set, R, 4>;

}  // namespace

void add_cached(const RowsTimesRows<float, float>& p) { add_tiles_along_x<Cached, 6>(p); }

}  // namespace drover::cpu::avx512

#pragma GCC pop_options
