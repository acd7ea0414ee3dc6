// AVX-512 with BF16. The functions are compiled for it one by one, so that no inline function of a header is.
#include <immintrin.h>

#include <algorithm>

#include "kernels/cpu/row_kernels.h"

// GCC's own intrinsics begin with vectors whose value is meant to be undefined.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512bf16")

namespace drover::cpu::pairs {

namespace {

inline __m512bh pair_of(const bf16* at) {  // in every lane
  int32_t pair;
  __builtin_memcpy(&pair, at, 4);
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
}
inline __m512bh last_of(const bf16* at) {  // the last value of an odd row, paired with zero
  uint16_t value;
  __builtin_memcpy(&value, at, 2);
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(value));
}
inline __m512 multiply_add(__m512bh x, __m512i w, __m512 sum) {
  return _mm512_dpbf16_ps(sum, x, reinterpret_cast<__m512bh>(w));
}

// A 16×16 block of pairs in place.
inline void transpose(__m512i (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// Sixteen rows of w, 32 columns from i on, of which `columns` count: row p of `block` has pair p of all of them.
inline void load_transposed(Rows<bf16> w, int64_t outputs, int64_t i, int64_t columns, __m512i (&block)[16]) {
  if (columns >= 32 && outputs >= 16) {
#pragma GCC unroll 16
    for (int o = 0; o < 16; ++o) block[o] = _mm512_loadu_si512(w.row(o) + i);
  } else {
    const __mmask32 some = columns >= 32 ? ~__mmask32{0} : (__mmask32{1} << columns) - 1;
    for (int o = 0; o < 16; ++o) {
      block[o] = o < outputs ? _mm512_maskz_loadu_epi16(some, w.row(o) + i) : _mm512_setzero_si512();
    }
  }
  transpose(block);
}

template <int R>
void few(Rows<bf16> x, Rows<bf16> w, int64_t outputs, int64_t k, float* sums, int64_t pitch) {
  const __mmask16 lanes = static_cast<__mmask16>((1u << outputs) - 1);
  __m512 chain[R];
  __m512i block[16];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) chain[r] = _mm512_maskz_loadu_ps(lanes, sums + r * pitch);
  int64_t i = 0;
  for (; i + 32 <= k; i += 32) {
    load_transposed(w, outputs, i, 32, block);
#pragma GCC unroll 16
    for (int p = 0; p < 16; ++p) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) chain[r] = multiply_add(pair_of(x.row(r) + i + 2 * p), block[p], chain[r]);
    }
  }
  if (i < k) load_transposed(w, outputs, i, k - i, block);
  for (int p = 0; i < k; i += 2, ++p) {
    for (int r = 0; r < R; ++r) {
      chain[r] = multiply_add(i + 1 < k ? pair_of(x.row(r) + i) : last_of(x.row(r) + i), block[p], chain[r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) _mm512_mask_storeu_ps(sums + r * pitch, lanes, chain[r]);
}

template <int R>
void tile(Rows<bf16> x, const int32_t* panel, int64_t k, float* sums) {
  __m512 chain[R][4];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) chain[r][v] = _mm512_loadu_ps(sums + r * kPanel + v * 16);
  }
  const auto* w = panel;
  for (int64_t i = 0; i + 2 <= k; i += 2, w += kPanel) {
    const __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + 16), w2 = _mm512_loadu_si512(w + 32),
                  w3 = _mm512_loadu_si512(w + 48);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const __m512bh pair = pair_of(x.row(r) + i);
      chain[r][0] = multiply_add(pair, w0, chain[r][0]);
      chain[r][1] = multiply_add(pair, w1, chain[r][1]);
      chain[r][2] = multiply_add(pair, w2, chain[r][2]);
      chain[r][3] = multiply_add(pair, w3, chain[r][3]);
    }
  }
  if (k % 2 != 0) {
    for (int r = 0; r < R; ++r) {
      const __m512bh last = last_of(x.row(r) + k - 1);
      for (int v = 0; v < 4; ++v) chain[r][v] = multiply_add(last, _mm512_loadu_si512(w + v * 16), chain[r][v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) _mm512_storeu_ps(sums + r * kPanel + v * 16, chain[r][v]);
  }
}

}  // namespace

void few_rows(int64_t rows, Rows<bf16> x, Rows<bf16> w, int64_t outputs, int64_t k, float* sums, int64_t pitch) {
  switch (rows) {
    case 1:
      return few<1>(x, w, outputs, k, sums, pitch);
    case 2:
      return few<2>(x, w, outputs, k, sums, pitch);
    case 3:
      return few<3>(x, w, outputs, k, sums, pitch);
    case 4:
      return few<4>(x, w, outputs, k, sums, pitch);
    case 5:
      return few<5>(x, w, outputs, k, sums, pitch);
    case 6:
      return few<6>(x, w, outputs, k, sums, pitch);
    case 7:
      return few<7>(x, w, outputs, k, sums, pitch);
    default:
      return few<8>(x, w, outputs, k, sums, pitch);
  }
}

void pack(Rows<bf16> w, int64_t outputs, int64_t k, void* panel) {
  int32_t* to = static_cast<int32_t*>(panel);
  for (int64_t o = 0; o < kPanel; o += 16) {
    for (int64_t i = 0; i < k; i += 32) {
      __m512i block[16];
      load_transposed(w.from(o), outputs - o, i, k - i, block);
      const int64_t pairs = (std::min<int64_t>(32, k - i) + 1) / 2;
      for (int64_t p = 0; p < pairs; ++p) _mm512_storeu_si512(to + (i / 2 + p) * kPanel + o, block[p]);
    }
  }
}

void packed(int64_t rows, Rows<bf16> x, const void* panel, int64_t k, float* sums) {
  const auto* w = static_cast<const int32_t*>(panel);
  int64_t t = 0;
  for (; t + 6 <= rows; t += 6) tile<6>(x.from(t), w, k, sums + t * kPanel);
  for (; t + 2 <= rows; t += 2) tile<2>(x.from(t), w, k, sums + t * kPanel);
  if (t < rows) tile<1>(x.from(t), w, k, sums + t * kPanel);
}

}  // namespace drover::cpu::pairs

#pragma GCC pop_options
