// Rows of codes as the products for generation read them, where every kCodedBlock columns have one scale.
#pragma once
#include <concepts>
#include <cstdint>

#include "kernels/base/nf4.h"
#include "kernels/cpu/dequantise.h"

namespace drover::cpu {

inline constexpr int64_t kCodedBlock = 64;  // columns of a row that have one scale, and begin at a multiple of it

struct Fp8Row {
  const uint8_t* codes;
  const float* scales;
  int64_t phase;  // of the first column, in its block: a multiple of kCodedBlock
  int shift;      // a block has 2^shift columns
  Roundings roundings;
  float scale(int64_t i) const { return scales[(phase + i) >> shift]; }
};
inline Fp8Row from(const Fp8Row& row, int64_t i) {
  return {row.codes + i, row.scales, row.phase + i, row.shift, row.roundings};
}

struct Fp8Rows {
  const uint8_t* codes;
  int64_t pitch;
  const float* scales;
  int64_t scale_pitch;
  const int32_t* scale_row;
  int64_t phase;
  int shift;
  Roundings roundings;
  Fp8Row row(int64_t i) const {
    return {codes + i * pitch, scales + scale_row[i] * scale_pitch, phase, shift, roundings};
  }
  Fp8Rows from(int64_t row) const {
    Fp8Rows later = *this;
    later.codes += row * pitch, later.scale_row += row;
    return later;
  }
};

struct Nf4Row {
  const uint8_t* codes;  // two columns a byte
  const float* absmax;   // of each block
  Roundings roundings;
};
inline Nf4Row from(const Nf4Row& row, int64_t i) {
  return {row.codes + i / 2, row.absmax + i / kNf4Block, row.roundings};
}

struct Nf4Rows {
  const uint8_t* codes;
  int64_t pitch;
  const float* absmax;
  int64_t absmax_pitch;
  Roundings roundings;
  Nf4Row row(int64_t i) const { return {codes + i * pitch, absmax + i * absmax_pitch, roundings}; }
  Nf4Rows from(int64_t row) const {
    return {codes + row * pitch, pitch, absmax + row * absmax_pitch, absmax_pitch, roundings};
  }
};

template <typename Row>
concept CodedRow = std::same_as<Row, Fp8Row> || std::same_as<Row, Nf4Row>;

}  // namespace drover::cpu
