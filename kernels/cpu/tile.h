// Small fp32 matrix products on tiles that lie in the first-level caches: c (m×n) += a (m×k) · b (k×n).
// a is read at a[i·row + l·col], so it may be a transposed view; n is a multiple of 8 (tiles are padded with zeros).
#pragma once
#include "kernels/cpu/vector.h"

namespace drover::cpu {

struct Strided {
  const float* data;
  int64_t row, col;
};

// The sums stay in registers only where every loop over them is unrolled, which -O2 does not do by itself.
template <int M, int N>
inline void tile_block(int64_t k, Strided a, const float* b, int64_t ldb, float* c, int64_t ldc) {
  Vec sums[M][N];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) sums[i][j] = load(c + i * ldc + j * kLanes);
  }
  for (int64_t l = 0; l < k; ++l) {
    Vec bs[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) bs[j] = load(b + l * ldb + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const Vec as = _mm256_broadcast_ss(a.data + i * a.row + l * a.col);
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sums[i][j] = _mm256_fmadd_ps(as, bs[j], sums[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) store(c + i * ldc + j * kLanes, sums[i][j]);
  }
}

template <int N>
inline void tile_columns(int64_t m, int64_t k, Strided a, const float* b, int64_t ldb, float* c, int64_t ldc) {
  int64_t i = 0;
  const auto at = [&](int64_t row) { return Strided{a.data + row * a.row, a.row, a.col}; };
  for (; i + 6 <= m; i += 6) tile_block<6, N>(k, at(i), b, ldb, c + i * ldc, ldc);
  for (; i + 4 <= m; i += 4) tile_block<4, N>(k, at(i), b, ldb, c + i * ldc, ldc);
  for (; i + 2 <= m; i += 2) tile_block<2, N>(k, at(i), b, ldb, c + i * ldc, ldc);
  if (i < m) tile_block<1, N>(k, at(i), b, ldb, c + i * ldc, ldc);
}

inline void tile_product(int64_t m, int64_t n, int64_t k, Strided a, const float* b, int64_t ldb, float* c,
                         int64_t ldc) {
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) tile_columns<2>(m, k, a, b + j, ldb, c + j, ldc);
  if (j < n) tile_columns<1>(m, k, a, b + j, ldb, c + j, ldc);
}

}  // namespace drover::cpu
