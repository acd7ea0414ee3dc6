// Frozen weights whose elements are codes with scales. They lie alike on every device, codes and scales in tensors of
// their own, so that a product may read them as they are or widen a panel of them first. value(i, j) is what
// kernels/base/quantised.h says of it.
#pragma once
#include <span>

#include "kernels/base/nf4.h"
#include "kernels/weight.h"

namespace drover {

class Backend;

// scale(i, j) = scales(scale_row[i], (column_phase + j) / block_columns); block_columns 0: scales has one column.
class Fp8Weight : public Weight {
 public:
  Fp8Weight(Arena& arena, const WeightShape& shape);
  int64_t bytes() const override { return codes.bytes() + scales.bytes() + scale_row.bytes(); }
  const ScaleBlocks blocks;
  const Rounding rounding;
  const float largest_input;   // of products in fp8
  const int64_t column_phase;  // of the first column, in its block
  const Tensor codes;          // (out, in) u8
  const Tensor scales;         // f32: of all parts, one under another
  const Tensor scale_row;      // (out) i32
  std::span<const Scaling::Part> parts() const { return parts_; }
  bool scales_are_powers() const { return scales_are_powers_; }  // is_moderate_power, all that were loaded
  // Rows of the part from what files hold or what was made of them.
  void load(Backend& backend, size_t part, const Fp8Slice& rows);

 private:
  std::vector<Scaling::Part> parts_;
  bool scales_are_powers_ = true;
};

// The absmax of block b of row i, with double quantisation: levels[absmax(i, b)] · nested_absmax[(first_block[i] + b) /
// 256]
// + offset[i], rounded after the product and after the sum; else absmax(i, b).
class Nf4Weight : public Weight {
 public:
  Nf4Weight(Arena& arena, const WeightShape& shape);
  int64_t bytes() const override;
  bool nested() const { return absmax.dtype == DType::u8; }
  const Rounding rounding;
  const Tensor codes;   // (out, in / 2) u8: the even column's in the upper half
  const Tensor absmax;  // (out, in / 64) u8 | f32
  // Empty without double quantisation:
  const Tensor levels;         // (256) f32: of the codes of absmax
  const Tensor nested_absmax;  // f32; each part's begins where a run of 256 blocks of its tensor does
  const Tensor first_block;    // (out) i32: of the row, counted along nested_absmax in blocks
  const Tensor offset;         // (out) f32
  void load(Backend& backend, size_t part, const Nf4Slice& rows);

 private:
  std::vector<Scaling::Part> parts_;
  int64_t col_, whole_cols_;
  std::vector<float> host_levels_;
};

// fp8 or nf4.
std::unique_ptr<Weight> lay_out_quantised(Arena& arena, const WeightShape& shape);

}  // namespace drover
