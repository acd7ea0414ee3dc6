// Makes quantised weights of others (quantised.h): fp8 in blocks of 128 × 128, and NF4 with double quantisation, as
// bitsandbytes makes it. The scale of a block of fp8 is the least power of two that brings its largest magnitude to 448
// or below, as in the E8M0 scales of the OCP Microscaling Formats: normal codes are as precise as with largest / 448,
// their relative error being that of three bits of mantissa, and a code times its scale is exact in bf16.
#pragma once
#include <span>

#include "kernels/base/quantised.h"

namespace drover {

inline constexpr ScaleBlocks kMadeBlocks{128, 128};

// values (rows, cols) of a tensor from `row` and `col` on, both of which begin a block. A block of zeros has scale 1.
Fp8Slice make_fp8(std::span<const float> values, int64_t row, int64_t rows, int64_t col, int64_t cols);
// A part of a slice: rows [row, row + rows) and columns [col, col + cols) of the tensor.
Fp8Slice cut(const Fp8Slice& slice, int64_t row, int64_t rows, int64_t col, int64_t cols);

// What NF4 needs of a whole tensor before a slice of it can be made.
class Nf4Scales {
 public:
  // absmax: of each block of 64 of the tensor, row by row.
  Nf4Scales(std::vector<float> absmax, int64_t whole_cols);
  // values (rows, cols) of the tensor from `row` and `col` on; columns begin and end between blocks.
  Nf4Slice make(std::span<const float> values, int64_t row, int64_t rows, int64_t col, int64_t cols) const;
  std::span<const float> nested() const {
    return nested_;
  }  // of each run of 256 blocks, the tensor's last may be short
  float offset() const { return offset_; }

 private:
  int64_t whole_cols_;
  std::vector<float> absmax_, nested_;
  float offset_ = 0;
};

float largest_magnitude(std::span<const float> values);

}  // namespace drover
