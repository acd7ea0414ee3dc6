// Eight codes to numbers (AVX2): what dequantise.h and the products for generation share.
#pragma once
#include "kernels/base/nf4.h"
#include "kernels/cpu/dequantise.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

inline Vec rounded_to_bf16(Vec v) {  // not of NaN
  const __m256i u = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
  return _mm256_castsi256_ps(_mm256_and_si256(sum, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
inline Vec rounded(Vec v, Rounding rounding) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  if (rounding == Rounding::f16) return _mm256_cvtph_ps(_mm256_cvtps_ph(v, kNearest));
  return rounding == Rounding::bf16 ? rounded_to_bf16(v) : v;
}
inline Vec rounded(Vec v, Roundings r) { return rounded(rounded(v, r.first), r.second); }

// The bits of e4m3 numbers in the middle of those of IEEE's binary16 are the numbers times 2⁻⁸; from binary16, unlike
// in fp32, the smallest ones are converted at full speed.
inline __m256i halves_of_fp8(__m128i codes) {
  const __m256i kept = _mm256_set1_epi16(static_cast<int16_t>(0xbf80));  // the sign is in every upper bit
  return _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7), kept);
}
// Eight e4m3 numbers times `scale`, which is 2⁸ times theirs.
inline Vec load_fp8(const uint8_t* codes, Vec scale) {
  const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes));
  return _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(halves_of_fp8(eight))), scale);
}
inline Vec scale_of_fp8(float scale) { return _mm256_set1_ps(scale * 0x1p8f); }

// Eight NF4 codes with one absmax: of the levels, already multiplied, and rounded where they are to be.
struct Nf4Lanes {
  Vec lower, upper;
  Nf4Lanes() = default;
  explicit Nf4Lanes(float absmax)
      : lower(_mm256_mul_ps(cpu::load(kNf4Levels.data()), _mm256_set1_ps(absmax))),
        upper(_mm256_mul_ps(cpu::load(kNf4Levels.data() + kLanes), _mm256_set1_ps(absmax))) {}
  Vec load(const uint8_t* codes) const {
    int32_t bytes;
    __builtin_memcpy(&bytes, codes, sizeof bytes);
    const __m256i shifts = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);
    const __m256i code = _mm256_srlv_epi32(_mm256_set1_epi32(bytes), shifts);  // in the lowest four bits
    const Vec a = _mm256_permutevar8x32_ps(lower, code), b = _mm256_permutevar8x32_ps(upper, code);
    return _mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
  }
};

}  // namespace drover::cpu
