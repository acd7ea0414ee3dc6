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
  int64_t phase, block;  // as dequantise_fp8 has them: multiples of kCodedBlock; block 0: one scale
  Roundings roundings;
  float scale(int64_t i) const { return scales[block == 0 ? 0 : (phase + i) / block]; }
};
inline Fp8Row from(const Fp8Row& row, int64_t i) {
  Fp8Row later = row;
  later.codes += i, later.phase += i;
  return later;
}

struct Fp8Rows {
  const uint8_t* codes;
  int64_t pitch;
  const float* scales;
  int64_t scale_pitch;
  const int32_t* scale_row;
  int64_t phase, block;
  Roundings roundings;
  Fp8Row row(int64_t i) const {
    return {codes + i * pitch, scales + scale_row[i] * scale_pitch, phase, block, roundings};
  }
  Fp8Rows from(int64_t row) const {
    Fp8Rows later = *this;
    later.codes += row * pitch, later.scale_row += row;
    return later;
  }
};

struct Nf4Row {
  const uint8_t* codes;         // two columns a byte
  const float* absmax;          // of each block; null: worked out of
  const uint8_t* absmax_codes;  // these, as absmax_of does
  const float *levels, *nested;
  int64_t first;
  float offset;
  Roundings roundings;
};
inline Nf4Row from(const Nf4Row& row, int64_t i) {
  Nf4Row later = row;
  later.codes += i / 2, later.first += i / kNf4Block;
  if (row.absmax != nullptr) {
    later.absmax += i / kNf4Block;
  } else {
    later.absmax_codes += i / kNf4Block;
  }
  return later;
}

struct Nf4Rows {
  const uint8_t* codes;
  int64_t pitch;
  const float* absmax;
  const uint8_t* absmax_codes;
  int64_t absmax_pitch;
  const float *levels, *nested;
  const int32_t* first_block;
  const float* offset;
  Roundings roundings;
  Nf4Row row(int64_t i) const {
    if (absmax != nullptr) return {codes + i * pitch, absmax + i * absmax_pitch, {}, {}, {}, 0, 0, roundings};
    return {codes + i * pitch, nullptr,  absmax_codes + i * absmax_pitch, levels, nested, first_block[i],
            offset[i],         roundings};
  }
  Nf4Rows from(int64_t row) const {
    Nf4Rows later = *this;
    later.codes += row * pitch;
    if (absmax != nullptr) {
      later.absmax += row * absmax_pitch;
    } else {
      later.absmax_codes += row * absmax_pitch, later.first_block += row, later.offset += row;
    }
    return later;
  }
};

// Of the blocks of k columns: as they lie, or worked out in `space`.
inline const float* absmax_of_row(const Nf4Row& row, int64_t k, float* space) {
  if (row.absmax != nullptr) return row.absmax;
  absmax_of(row.absmax_codes, row.levels, row.nested, row.first, row.offset, k / kNf4Block, space);
  return space;
}

template <typename Row>
concept CodedRow = std::same_as<Row, Fp8Row> || std::same_as<Row, Nf4Row>;

}  // namespace drover::cpu
