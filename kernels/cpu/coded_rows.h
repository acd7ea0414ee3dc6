// Rows of codes as the products for generation read them, where every kCodedBlock columns have one scale.
#pragma once
#include <cstdint>
#include <type_traits>

#include "kernels/base/nf4.h"

namespace drover::cpu {

inline constexpr int64_t kCodedBlock = 64;  // columns of a row that have one scale, and begin at a multiple of it

// narrow: a value is rounded to bf16 before it multiplies.
template <bool narrow>
struct Fp8Row {
  const uint8_t* codes;
  const float* scales;
  int64_t phase;  // of the first column, in its block: a multiple of kCodedBlock
  int shift;      // a block has 2^shift columns
  float scale(int64_t i) const { return scales[(phase + i) >> shift]; }
};
template <bool narrow>
[[gnu::always_inline]] inline Fp8Row<narrow> from(const Fp8Row<narrow>& row, int64_t i) {
  return {row.codes + i, row.scales, row.phase + i, row.shift};
}

template <bool narrow>
struct Fp8Rows {
  const uint8_t* codes;
  int64_t pitch;
  const float* scales;
  int64_t scale_pitch;
  const int32_t* scale_row;
  int64_t phase;
  int shift;
  Fp8Row<narrow> row(int64_t i) const { return {codes + i * pitch, scales + scale_row[i] * scale_pitch, phase, shift}; }
  Fp8Rows from(int64_t row) const {
    Fp8Rows later = *this;
    later.codes += row * pitch, later.scale_row += row;
    return later;
  }
};

template <bool narrow>
struct Nf4Row {
  const uint8_t* codes;  // two columns a byte
  const float* absmax;   // of each block
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
template <bool narrow>
inline constexpr bool kCoded<Fp8Row<narrow>> = true;
template <bool narrow>
inline constexpr bool kCoded<Nf4Row<narrow>> = true;

}  // namespace drover::cpu
