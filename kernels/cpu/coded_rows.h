// Rows of codes as the products for generation read them, where every kCodedBlock columns have one scale.
#pragma once
#include <array>
#include <cstdint>
#include <type_traits>

#include "kernels/base/nf4.h"

namespace drover::cpu {

inline constexpr int64_t kCodedBlock = 64;  // columns of a row that have one scale, and begin at a multiple of it

// What multiplies: a code's product with its scale.
enum class Scales : uint8_t {
  any,      // in fp32
  rounded,  // to bf16
  powers,   // of two, neither very small nor very large (is_moderate_power), so that the product is exact
};

template <Scales>
struct Fp8Row {
  const uint8_t* codes;
  const float* scales;
  int64_t phase;  // of the first column, in its block: a multiple of kCodedBlock
  int shift;      // a block has 2^shift columns
  int64_t block(int64_t i) const { return (phase + i) >> shift; }
};
template <Scales scales>
[[gnu::always_inline]] inline Fp8Row<scales> from(const Fp8Row<scales>& row, int64_t i) {
  return {row.codes + i, row.scales, row.phase + i, row.shift};
}

template <Scales which>
struct Fp8Rows {
  const uint8_t* codes;
  int64_t pitch;
  const float* scales;
  int64_t scale_pitch;
  const int32_t* scale_row;
  int64_t phase;
  int shift;
  Fp8Row<which> row(int64_t i) const { return {codes + i * pitch, scales + scale_row[i] * scale_pitch, phase, shift}; }
  Fp8Rows from(int64_t row) const {
    Fp8Rows later = *this;
    later.codes += row * pitch, later.scale_row += row;
    return later;
  }
};

// narrow: a value is rounded to bf16 before it multiplies.
template <bool narrow>
struct Nf4Row {
  const uint8_t* codes;  // two columns a byte
  const float* absmax;   // of each block
  int64_t block(int64_t i) const { return i / kNf4Block; }
};
template <bool narrow>
[[gnu::always_inline]] inline Nf4Row<narrow> from(const Nf4Row<narrow>& row, int64_t i) {
  return {row.codes + i / 2, row.absmax + i / kNf4Block};
}

template <bool narrow>
struct Nf4Rows {
  const uint8_t* codes;
  int64_t pitch;
  const float* absmax;
  int64_t absmax_pitch;
  Nf4Row<narrow> row(int64_t i) const { return {codes + i * pitch, absmax + i * absmax_pitch}; }
  Nf4Rows from(int64_t row) const { return {codes + row * pitch, pitch, absmax + row * absmax_pitch, absmax_pitch}; }
};

template <typename Row>
inline constexpr bool kCoded = false;
template <Scales scales>
inline constexpr bool kCoded<Fp8Row<scales>> = true;
template <bool narrow>
inline constexpr bool kCoded<Nf4Row<narrow>> = true;

// Codes that share a word are widened one of each word at a time, so that the values of a block come out in another
// order. What they multiply is copied in that order: column i of a block stands at place[i].
using Places = std::array<uint8_t, kCodedBlock>;
struct CopyOrder {
  Places place;
  float factor = 1;  // a power of two, by which the copy is multiplied and the values are divided
};

// Bytes of two codes: the upper ones' values (even columns), then the lower ones', in vectors of eight: four of the
// first half of the bytes with the four of the other that stand at the same place.
inline constexpr CopyOrder kNf4Order256 = [] {
  Places place{};
  for (size_t i = 0; i < place.size(); ++i) {
    const size_t byte = i / 2, half = byte / 16, quarter = byte % 16 / 4;
    place[i] = static_cast<uint8_t>(i % 2 * 32 + quarter * 8 + half * 4 + byte % 4);
  }
  return CopyOrder{place};
}();

// Sixteen codes are unpacked to words, eight and eight: in each of those two vectors the pairs' lower words are
// widened, then the upper ones. Values are 2⁻⁸ of the true ones, of Scales::powers 2⁷ (row_vectors_avx512.h).
inline constexpr Places kFp8Places512 = [] {
  Places place{};
  for (size_t i = 0; i < place.size(); ++i) {
    const size_t sixteen = i / 16, vector = i % 16 / 8, pair = i % 8 / 2;
    place[i] = static_cast<uint8_t>((vector * 2 + i % 2) * 16 + sixteen * 4 + pair);
  }
  return place;
}();
inline constexpr CopyOrder kFp8Order512{kFp8Places512, 0x1p8f}, kFp8PowersOrder512{kFp8Places512, 0x1p-7f};

// Words of eight codes: the first of all words and the fifth of all, then the second and the sixth, ….
inline constexpr CopyOrder kNf4Order512 = [] {
  Places place{};
  for (size_t i = 0; i < place.size(); ++i) {
    const size_t word = i / 8, code = i % 8 ^ 1;  // counted from the lowest bits
    place[i] = static_cast<uint8_t>(code % 4 * 16 + code / 4 * 8 + word);
  }
  return CopyOrder{place};
}();

}  // namespace drover::cpu
