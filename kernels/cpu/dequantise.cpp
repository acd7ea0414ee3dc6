#include "kernels/cpu/dequantise.h"

#include <algorithm>

#include "kernels/base/nf4.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

namespace {

Vec rounded(Vec v, Rounding rounding) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  if (rounding == Rounding::none) return v;
  if (rounding == Rounding::f16) return _mm256_cvtph_ps(_mm256_cvtps_ph(v, kNearest));
  const __m256i u = _mm256_castps_si256(v);  // no NaN comes here
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
  return _mm256_castsi256_ps(_mm256_and_si256(sum, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

Vec rounded(Vec v, Roundings r) { return rounded(rounded(v, r.first), r.second); }

// Eight e4m3 numbers, each times 2⁻¹²⁰: their bits as the upper ones of fp32.
Vec small_e4m3(const uint8_t* codes) {
  const __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
  const __m256i size = _mm256_slli_epi32(_mm256_and_si256(code, _mm256_set1_epi32(0x7f)), 20);
  const __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(code, 7), 31);
  return _mm256_castsi256_ps(_mm256_or_si256(size, sign));
}

// f(the n-th eight codes' values) at to[8n], the last ones through a copy.
template <typename Out>
void fp8_run(const uint8_t* codes, float scale, Roundings roundings, int64_t n, Out* to) {
  const Vec s = _mm256_set1_ps(scale), unit = _mm256_set1_ps(0x1p120f);
  const auto eight = [&](const uint8_t* at) {
    return rounded(_mm256_mul_ps(_mm256_mul_ps(small_e4m3(at), unit), s), roundings);
  };
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(to + j, eight(codes + j));
  if (j == n) return;
  uint8_t rest[kLanes] = {};
  std::copy_n(codes + j, n - j, rest);
  alignas(32) float out[kLanes];
  store(out, eight(rest));
  for (int64_t i = 0; j + i < n; ++i) store_one(to + j + i, out[i]);
}

template <typename Out>
void fp8_row(const uint8_t* codes, const float* scales, int64_t phase, int64_t block, Roundings roundings, int64_t n,
             Out* to) {
  if (block == 0) return fp8_run(codes, scales[0], roundings, n, to);
  for (int64_t j = 0; j < n;) {
    const int64_t count = std::min(n - j, block - (phase + j) % block);
    fp8_run(codes + j, scales[(phase + j) / block], roundings, count, to + j);
    j += count;
  }
}

template <typename Out>
void nf4_row(const uint8_t* codes, const float* absmax, Roundings roundings, int64_t n, Out* to) {
  const Vec low = load(kNf4Levels.data()), high = load(kNf4Levels.data() + kLanes);
  const __m256i shifts = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);
  for (int64_t begin = 0; begin < n; begin += kNf4Block) {
    const Vec scale = _mm256_set1_ps(absmax[begin / kNf4Block]);
    const Vec lower = rounded(_mm256_mul_ps(low, scale), roundings),
              upper = rounded(_mm256_mul_ps(high, scale), roundings);
    for (int64_t j = begin; j < std::min(begin + kNf4Block, n); j += kLanes) {
      int32_t bytes;
      std::copy_n(codes + j / 2, sizeof bytes, reinterpret_cast<uint8_t*>(&bytes));
      const __m256i code = _mm256_srlv_epi32(_mm256_set1_epi32(bytes), shifts);  // in the lowest four bits
      const Vec a = _mm256_permutevar8x32_ps(lower, code), b = _mm256_permutevar8x32_ps(upper, code);
      store(to + j, _mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_slli_epi32(code, 28))));
    }
  }
}

template <typename F>
void with_floats(DType dtype, void* to, F&& f) {
  if (dtype == DType::f32) return f(static_cast<float*>(to));
  f(static_cast<bf16*>(to));
}

}  // namespace

void dequantise_fp8(const uint8_t* codes, const float* scales, int64_t phase, int64_t block, Roundings roundings,
                    int64_t n, DType dtype, void* to) {
  with_floats(dtype, to, [&](auto* out) { fp8_row(codes, scales, phase, block, roundings, n, out); });
}

void dequantise_nf4(const uint8_t* codes, const float* absmax, Roundings roundings, int64_t n, DType dtype, void* to) {
  with_floats(dtype, to, [&](auto* out) { nf4_row(codes, absmax, roundings, n, out); });
}

void absmax_of(const uint8_t* codes, const float* levels, const float* nested, int64_t first, float offset, int64_t n,
               float* out) {
  for (int64_t b = 0; b < n;) {  // a run at a time
    const int64_t end = std::min(n, b + kNf4NestedBlock - (first + b) % kNf4NestedBlock);
    const float largest = nested[(first + b) / kNf4NestedBlock];
    for (; b < end; ++b) out[b] = levels[codes[b]] * largest + offset;
  }
}

}  // namespace drover::cpu
