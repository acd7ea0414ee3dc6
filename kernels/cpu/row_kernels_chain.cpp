// AVX2 + FMA.
#include <algorithm>

#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu::chain {

namespace {

// Eight rows of w from column i on, transposed: row j of `block` has column i + j of all of them.
template <typename W>
void load_transposed(Rows<W> w, int64_t outputs, int64_t i, int64_t columns, Vec (&block)[kLanes]) {
  if (columns >= kLanes && outputs >= kLanes) {
#pragma GCC unroll 8
    for (int64_t o = 0; o < kLanes; ++o) block[o] = load(w.row(o) + i);
  } else {
    for (int64_t o = 0; o < kLanes; ++o) {
      alignas(32) float values[kLanes] = {};
      for (int64_t j = 0; o < outputs && j < std::min(kLanes, columns); ++j) values[j] = load_one(w.row(o) + i + j);
      block[o] = load(values);
    }
  }
  transpose(block);
}

template <int R, typename W>
void few(Rows<float> x, Rows<W> w, int64_t outputs, int64_t k, float* sums, int64_t pitch) {
  Vec chain[R], block[kLanes];
  alignas(32) float edge[kLanes] = {};
  for (int r = 0; r < R; ++r) {
    std::copy_n(sums + r * pitch, outputs, edge);
    chain[r] = load(edge);
  }
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    load_transposed(w, outputs, i, kLanes, block);
#pragma GCC unroll 8
    for (int j = 0; j < kLanes; ++j) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) chain[r] = _mm256_fmadd_ps(_mm256_broadcast_ss(x.row(r) + i + j), block[j], chain[r]);
    }
  }
  if (i < k) load_transposed(w, outputs, i, k - i, block);
  for (int64_t j = 0; i + j < k; ++j) {
    for (int r = 0; r < R; ++r) chain[r] = _mm256_fmadd_ps(_mm256_broadcast_ss(x.row(r) + i + j), block[j], chain[r]);
  }
  for (int r = 0; r < R; ++r) {
    store(edge, chain[r]);
    std::copy_n(edge, outputs, sums + r * pitch);
  }
}

// R rows × 16 outputs of a panel whose every step has kPanel values.
template <int R>
void tile(Rows<float> x, const float* panel, int64_t k, float* sums) {
  Vec chain[R][2];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    chain[r][0] = load(sums + r * kPanel);
    chain[r][1] = load(sums + r * kPanel + kLanes);
  }
  for (int64_t i = 0; i < k; ++i) {
    const Vec w0 = load(panel + i * kPanel), w1 = load(panel + i * kPanel + kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const Vec value = _mm256_broadcast_ss(x.row(r) + i);
      chain[r][0] = _mm256_fmadd_ps(value, w0, chain[r][0]);
      chain[r][1] = _mm256_fmadd_ps(value, w1, chain[r][1]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    store(sums + r * kPanel, chain[r][0]);
    store(sums + r * kPanel + kLanes, chain[r][1]);
  }
}

}  // namespace

template <typename W>
void few_rows(int64_t rows, Rows<float> x, Rows<W> w, int64_t outputs, int64_t k, float* sums, int64_t pitch) {
  switch (rows) {
    case 1:
      return few<1>(x, w, outputs, k, sums, pitch);
    case 2:
      return few<2>(x, w, outputs, k, sums, pitch);
    case 3:
      return few<3>(x, w, outputs, k, sums, pitch);
    default:
      return few<4>(x, w, outputs, k, sums, pitch);
  }
}
template void few_rows(int64_t, Rows<float>, Rows<float>, int64_t, int64_t, float*, int64_t);
template void few_rows(int64_t, Rows<float>, Rows<bf16>, int64_t, int64_t, float*, int64_t);

template <typename W>
void pack(Rows<W> w, int64_t outputs, int64_t k, void* panel) {
  float* to = static_cast<float*>(panel);
  for (int64_t o = 0; o < kPanel; o += kLanes) {
    for (int64_t i = 0; i < k; i += kLanes) {
      Vec block[kLanes];
      load_transposed(w.from(o), outputs - o, i, k - i, block);
      for (int64_t j = 0; j < std::min(kLanes, k - i); ++j) store(to + (i + j) * kPanel + o, block[j]);
    }
  }
}
template void pack(Rows<float>, int64_t, int64_t, void*);
template void pack(Rows<bf16>, int64_t, int64_t, void*);

void packed(int64_t rows, Rows<float> x, const void* panel, int64_t k, float* sums) {
  for (int64_t o = 0; o < kPanel; o += 2 * kLanes) {
    const float* w = static_cast<const float*>(panel) + o;
    int64_t t = 0;
    for (; t + 6 <= rows; t += 6) tile<6>(x.from(t), w, k, sums + t * kPanel + o);
    for (; t + 2 <= rows; t += 2) tile<2>(x.from(t), w, k, sums + t * kPanel + o);
    if (t < rows) tile<1>(x.from(t), w, k, sums + t * kPanel + o);
  }
}

}  // namespace drover::cpu::chain
