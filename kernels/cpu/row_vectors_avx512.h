// What AVX-512's row kernels share: vectors of sixteen numbers, and blocks of fp8 widened to them. To be included once
// in each of their files, behind the `#pragma GCC target` of the set; everything here is of the file alone.
#pragma once
#include <bit>

#include "kernels/cpu/intrinsics.h"
#include "kernels/cpu/row_kernels.h"

namespace drover::cpu {

namespace {

struct Vectors16 {
  using X = float;
  using Operand = __m512;
  using Sum = __m512;
  static constexpr int64_t kValues = 16;
  static constexpr int kVectors = 1;
  static constexpr int kChains = 16;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Operand load(const float* p) { return _mm512_loadu_ps(p); }
  static Operand load(const bf16* p) { return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static Operand load_some(const bf16* p, int64_t n) { return widened(_mm256_maskz_loadu_epi16(first(n), p)); }
  static Operand load_some(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store(float* to, Operand v) { _mm512_storeu_ps(to, v); }
  static __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  static Operand widened(__m256i v) {
    return reinterpret_cast<__m512>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
  }
  static Sum multiply_add(Operand x, Operand w, Sum sum) { return _mm512_fmadd_ps(x, w, sum); }
  static __m256 fold(const Sum (&part)[kVectors]) {
    return _mm256_add_ps(_mm512_castps512_ps256(part[0]), _mm512_extractf32x8_ps(part[0], 1));
  }
};

__m512 rounded_to_bf16(__m512 v) {  // not of NaN
  const __m512i u = reinterpret_cast<__m512i>(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
  return reinterpret_cast<__m512>(_mm512_and_si512(sum, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

constexpr int kMaskedOr = 0xea;  // of three operands: (a & b) | c
__m512i words_with(uint32_t bits) { return _mm512_set1_epi32(static_cast<int>(bits)); }

__m512 as_numbers(__m512i bits) { return reinterpret_cast<__m512>(bits); }

// A block in the order of kFp8Order512, which powers have with another factor. Words<top> has, where bf16 has them, the
// sign, the exponent and the mantissa of codes, as words in two vectors: of every sixteen codes the first eight and the
// others. Those four bits are the lower half of bf16's exponent, and the upper half is `top`, shifted by three.
//   any, rounded   the upper half is 0111, so that no number is denormal in fp32: 2⁻⁸ of the true one
//   powers         the upper half is 0000, and the scale's exponent is added to it: 2⁷ of the true one
template <Scales scales, template <uint8_t> class Words>
struct Fp8Block {
  static constexpr bool kPowers = scales == Scales::powers;
  static constexpr float kFactor = (kPowers ? kFp8PowersOrder512 : kFp8Order512).factor;
  __m512 values[4];
  void begin_block(const Fp8Row<scales>& row, int64_t i, int64_t block) {
    const uint8_t* at = row.codes + i;
    ask_for(at);
    const __m512i codes = _mm512_loadu_si512(at);
    const float* scale = row.scales + block;
    const bool denormal = _mm512_testn_epi8_mask(codes, _mm512_set1_epi8(0x78)) != 0;
    if (denormal) [[unlikely]] {
      widen_any(codes, *scale);
    } else {
      widen_normal(codes, scale);
    }
  }
  __m512 load(int v) const { return values[v]; }

 private:
  [[gnu::always_inline]] void widen_normal(__m512i codes, const float* scale) {
    if constexpr (kPowers) {
      const Words<0> words(codes);
      const __m512i exponent = _mm512_set1_epi16(static_cast<int16_t>(std::bit_cast<uint32_t>(*scale) >> 16));
      put(_mm512_add_epi16(words.first, exponent), _mm512_add_epi16(words.second, exponent));
    } else {
      const Words<0x38> words(codes);
      put(words.first, words.second);
      for (__m512& v : values) v = scaled(v, *scale);
    }
  }
  [[gnu::always_inline]] void widen_any(__m512i codes, float scale) {
    const Words<0> words(codes);
    put(words.first, words.second);
    for (__m512& v : values) v = scaled(any_number(reinterpret_cast<__m512i>(v)), scale);
  }
  // Of bits with 0000 on top: where the exponent is 0, ±m · 2⁻⁹.
  static __m512 any_number(__m512i bits) {
    const __m512i m = _mm512_and_si512(_mm512_srli_epi32(bits, 20), words_with(7));
    const __m512 magnitude = _mm512_mul_ps(_mm512_cvtepi32_ps(m), _mm512_set1_ps(0x1p-9f / kFactor));
    const __m512i small =
        _mm512_ternarylogic_epi32(bits, words_with(0x80000000u), reinterpret_cast<__m512i>(magnitude), kMaskedOr);
    const __m512 normal = _mm512_mul_ps(as_numbers(_mm512_or_si512(bits, words_with(0x38000000u))),
                                        _mm512_set1_ps(kFp8Order512.factor / kFactor));
    const __mmask16 denormal = _mm512_testn_epi32_mask(bits, words_with(0x07800000u));
    return _mm512_mask_mov_ps(normal, denormal, as_numbers(small));
  }
  [[gnu::always_inline]] void put(__m512i first, __m512i second) {
    const __m512i upper = words_with(0xffff0000u);
    values[0] = as_numbers(_mm512_slli_epi32(first, 16)), values[1] = as_numbers(_mm512_and_si512(first, upper));
    values[2] = as_numbers(_mm512_slli_epi32(second, 16)), values[3] = as_numbers(_mm512_and_si512(second, upper));
  }
  static __m512 scaled(__m512 numbers, float scale) {
    const __m512 product = _mm512_mul_ps(numbers, _mm512_set1_ps(scale));
    return scales == Scales::rounded ? rounded_to_bf16(product) : product;
  }
};

}  // namespace

}  // namespace drover::cpu
