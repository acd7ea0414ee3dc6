// AVX-512 with BF16.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/intrinsics.h"
#include "kernels/cpu/row_kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

#include "kernels/cpu/row_pairs.h"
#include "kernels/cpu/row_tile.h"

namespace drover::cpu::avx512_bf16 {

namespace {

struct Set {
  using X = bf16;
  using Operand = __m512i;
  using Sum = __m512;
  static constexpr int64_t kValues = 32;
  static constexpr int kVectors = 1;
  static constexpr int kChains = 16;
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

void add_thin(const RowsTimesRows<bf16, bf16>& p) {
  __m512i pairs[kThinPairs + kPairs];
  const int64_t count = (p.k + 1) / 2;
  for (int64_t o = 0; o < p.outputs; o += kOutputs) {
    turn(p.w.from(o), p.outputs - o, p.k, pairs);
    const auto some = static_cast<__mmask16>((1u << std::min(kOutputs, p.outputs - o)) - 1);
    for (int64_t t = 0; t < p.rows; ++t) {
      alignas(64) bf16 x[kThin + 1] = {};
      std::copy_n(p.x.row(t), p.k, x);
      __m512 chain = _mm512_setzero_ps();
      for (int64_t i = 0; i < count; ++i) {
        int32_t pair;
        std::memcpy(&pair, x + 2 * i, sizeof pair);
        chain = _mm512_dpbf16_ps(chain, reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)),
                                 reinterpret_cast<__m512bh>(pairs[i]));
      }
      float* to = p.sums + t * p.pitch + o;
      _mm512_mask_storeu_ps(to, some, _mm512_add_ps(_mm512_maskz_loadu_ps(some, to), chain));
    }
  }
}

void add_cached(const RowsTimesRows<bf16, bf16>& p) { add_tiles_along_x<Cached, 6>(p); }
void add_streamed(const Streams<bf16, Rows<bf16>>& p) { add_tiles_along_w<Streamed, 4>(p); }

}  // namespace drover::cpu::avx512_bf16

#pragma GCC pop_options
