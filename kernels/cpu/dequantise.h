// Codes and scales of one row to numbers, eight at a time (AVX2).
#pragma once
#include <span>

#include "kernels/base/quantised.h"
#include "kernels/tensor.h"

namespace drover::cpu {

// One rounding after the other. `second` is what the dtype that computes asks for.
struct Roundings {
  Rounding first = Rounding::none, second = Rounding::none;
};

// Of a row's columns from one on that lies `phase` behind the beginning of its block. block 0: one scale for all.
struct RowScales {
  const float* scales;
  int64_t phase, block;
};
// to[j] = rounded(e4m3(codes[j]) · scales[(phase + j) / block]), j < n.  to f32 | bf16
void dequantise_fp8(const uint8_t* codes, const RowScales& scales, Roundings roundings, int64_t n, DType dtype,
                    void* to);

// to[j] = rounded(level[code j] · absmax[j / 64]), the even code in the upper half of codes[j / 2]. n: a multiple of 8.
void dequantise_nf4(const uint8_t* codes, const float* absmax, Roundings roundings, int64_t n, DType dtype, void* to);

}  // namespace drover::cpu
