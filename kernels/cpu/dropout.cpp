// Dropout whose decisions depend on (document, position, column) alone: 32 draws at a time, eight Philox4x32-10 blocks
// side by side. Source: Salmon et al., SC 2011; kernels/base/philox.h is the same function one block at a time.
#include <algorithm>

#include "kernels/base/philox.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

namespace {

// The high and low halves of eight 32×32-bit products with one factor.
void multiply_wide(__m256i a, __m256i factor, __m256i& high, __m256i& low) {
  const __m256i even = _mm256_mul_epu32(a, factor), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), factor);
  low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
  high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
}

// Draws of the columns [4·block, 4·block + 32) of one token, as floats in [0, 1).
void draw(PhiloxKey key, uint64_t block, uint64_t token, float* uniform) {
  alignas(32) uint32_t low_words[kLanes], high_words[kLanes];
  for (uint64_t i = 0; i < kLanes; ++i) {
    low_words[i] = static_cast<uint32_t>(block + i);
    high_words[i] = static_cast<uint32_t>((block + i) >> 32);
  }
  __m256i c0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(low_words)),
          c1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(high_words));
  __m256i c2 = _mm256_set1_epi32(static_cast<int>(token)), c3 = _mm256_set1_epi32(static_cast<int>(token >> 32));
  const __m256i m0 = _mm256_set1_epi32(static_cast<int>(0xD2511F53u)),
                m1 = _mm256_set1_epi32(static_cast<int>(0xCD9E8D57u));
  uint32_t k0 = key.lo, k1 = key.hi;
  for (int round = 0; round < 10; ++round) {
    __m256i high0, low0, high1, low1;
    multiply_wide(c0, m0, high0, low0);
    multiply_wide(c2, m1, high1, low1);
    c0 = _mm256_xor_si256(_mm256_xor_si256(high1, c1), _mm256_set1_epi32(static_cast<int>(k0)));
    c2 = _mm256_xor_si256(_mm256_xor_si256(high0, c3), _mm256_set1_epi32(static_cast<int>(k1)));
    c1 = low1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const auto as_uniform = [](__m256i lane) {
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_srli_epi32(lane, 8)), _mm256_set1_ps(0x1p-24f));
  };
  Vec lanes[4] = {as_uniform(c0), as_uniform(c1), as_uniform(c2), as_uniform(c3)};
  for (int lane = 0; lane < 4; ++lane) {
    alignas(32) float values[kLanes];
    store(values, lanes[lane]);
    for (int i = 0; i < kLanes; ++i) uniform[4 * i + lane] = values[i];
  }
}

// y[t,i] = (accumulate ? y : 0) + (keep ? x/(1-p) : 0)
template <typename X, typename Y>
void dropped_row(const X* x, Y* y, int64_t n, const DropoutMask& mask, int64_t t, bool accumulate) {
  constexpr int64_t kDraws = 4 * kLanes;
  const uint64_t token = static_cast<uint64_t>(static_cast<uint32_t>(mask.documents.as<int32_t>()[t])) << 32 |
                         static_cast<uint32_t>(mask.positions.as<int32_t>()[t]);
  const Vec p = _mm256_set1_ps(mask.p), scale = _mm256_set1_ps(1.0f / (1.0f - mask.p));
  alignas(32) float uniform[kDraws + 4];
  for (int64_t i = 0; i < n; i += kDraws) {
    // Columns need not begin at a block: the draws of up to three columns before them are skipped.
    const uint64_t column = static_cast<uint64_t>(mask.column_offset + i), skipped = column % 4;
    draw(PhiloxKey::of(mask.key), column / 4, token, uniform);
    const int64_t count = std::min(kDraws, n - i);
    if (skipped != 0) {
      const PhiloxBlock last = philox(PhiloxKey::of(mask.key), column / 4 + kLanes, token);
      for (int lane = 0; lane < 4; ++lane) uniform[kDraws + lane] = static_cast<float>(last.lane[lane] >> 8) * 0x1p-24f;
    }
    const auto kept = [&](Vec v, Vec u) {
      return _mm256_and_ps(_mm256_mul_ps(v, scale), _mm256_cmp_ps(u, p, _CMP_GE_OQ));
    };
    const float* draws = uniform + skipped;
    if (accumulate) {
      map_row(
          count, [&](Vec v, Vec u, Vec old) { return _mm256_add_ps(old, kept(v, u)); }, y + i, x + i, draws, y + i);
    } else {
      map_row(count, kept, y + i, x + i, draws);
    }
  }
}

void drop(Tensor x, const DropoutMask& mask, Tensor y, bool accumulate, int threads) {
  require(x.rows == y.rows && x.cols == y.cols, "dropout keeps the shape");
  with_type(x, [&](const auto* from) {
    with_type(y, [&](auto* to) {
#pragma omp parallel for num_threads(threads) schedule(static)
      for (int64_t r = 0; r < x.rows; ++r)
        dropped_row(from + r * x.pitch, to + r * y.pitch, x.cols, mask, r, accumulate);
    });
  });
}

}  // namespace

void CpuBackend::do_dropout(Tensor x, const DropoutMask& mask, Tensor y) { drop(x, mask, y, false, threads_); }
void CpuBackend::do_dropout_add(Tensor x, const DropoutMask& mask, Tensor y) { drop(x, mask, y, true, threads_); }

}  // namespace drover::cpu
