// AVX-512 with BF16.
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/row_kernels.h"

// GCC's own intrinsics begin with vectors whose value is meant to be undefined.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

#include "kernels/cpu/row_tile.h"

namespace drover::cpu::avx512_bf16 {

namespace {

struct Set {
  using X = bf16;
  using Operand = __m512i;
  using Sum = __m512;
  static constexpr int64_t kValues = 32;
  static constexpr int kVectors = 1;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Operand load(const bf16* p) { return _mm512_loadu_si512(p); }
  static Operand load_some(const bf16* p, int64_t n) {
    return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << n) - 1), p);
  }
  static Sum multiply_add(Operand x, Operand w, Sum sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
  }
  static __m256 fold(const Sum (&part)[kVectors]) {
    return _mm256_add_ps(_mm512_castps512_ps256(part[0]), _mm512_extractf32x8_ps(part[0], 1));
  }
};

template <int R>
using Cached = CachedTile<Set, R, 4>;
template <int R>
using Streamed = StreamedTile<Set, R>;

}  // namespace

void add_cached(const RowsTimesRows<bf16, bf16>& p) { add_tiles_along_x<Cached, 6>(p); }
void add_streamed(const RowsTimesRows<bf16, bf16>& p, const RowsTimesRows<bf16, bf16>& q) {
  add_tiles_along_w<Streamed, 4>(p, q);
}

}  // namespace drover::cpu::avx512_bf16

#pragma GCC pop_options
