#include "kernels/cpu/weight_view.h"

#include <bit>
#include <cstring>

#include "kernels/cpu/dequantise.h"
#include "kernels/cpu/vector.h"

namespace drover::cpu {

namespace {

Roundings roundings_of(Rounding file, DType computing) {
  const bool narrow = computing == DType::bf16 && file != Rounding::bf16;
  return {file, narrow ? Rounding::bf16 : Rounding::none};
}

uint64_t columns_of_block(const Fp8Weight& w) {
  return w.blocks.columns == 0 ? uint64_t{1} << 62 : static_cast<uint64_t>(w.blocks.columns);
}

void read_fp8(const Fp8Weight& w, int64_t row, int64_t col, Roundings roundings, Tensor to) {
  const uint8_t* codes = w.codes.as<uint8_t>() + row * w.codes.pitch + col;
  const float* scales = w.scales.as<float>() + w.scale_row.as<int32_t>()[row] * w.scales.pitch;
  dequantise_fp8(codes, {scales, w.column_phase + col, w.blocks.columns}, roundings, to.cols, to.dtype, to.data);
}

void read_nf4(const Nf4Weight& w, int64_t row, int64_t col, Roundings roundings, Tensor to) {
  require(col % kNf4Block == 0, "NF4 is read from the beginning of a block");
  const uint8_t* codes = w.codes.as<uint8_t>() + row * w.codes.pitch + col / 2;
  const float* absmax = w.absmax.as<float>() + row * w.absmax.pitch + col / kNf4Block;
  dequantise_nf4(codes, absmax, roundings, to.cols, to.dtype, to.data);
}

}  // namespace

WeightView::WeightView(Tensor values) : rows(values.rows), cols(values.cols), values_(values) {}

WeightView::WeightView(const Weight& weight) : rows(weight.out()), cols(weight.in()) {
  switch (weight.format()) {
    case Format::fp8: fp8_ = &static_cast<const Fp8Weight&>(weight); break;
    case Format::nf4: nf4_ = &static_cast<const Nf4Weight&>(weight); break;
    default: values_ = static_cast<const DenseWeight&>(weight).values;
  }
}

WeightView WeightView::rows_from(int64_t begin, int64_t count) const {
  WeightView part = *this;
  part.row_ += begin;
  part.rows = count;
  return part;
}

WeightView WeightView::columns(int64_t begin, int64_t count) const {
  WeightView part = *this;
  part.col_ += begin;
  part.cols = count;
  return part;
}

Tensor WeightView::values() const {
  require(dense(), "codes have no values that lie in memory");
  return values_.rows_from(row_, rows).columns(col_, cols);
}

bool WeightView::narrow() const { return (fp8_ != nullptr ? fp8_->rounding : nf4_->rounding) == Rounding::bf16; }

bool WeightView::streams() const {
  if (nf4_ != nullptr) return nf4_->rounding != Rounding::f16;
  if (fp8_ == nullptr) return true;
  const uint64_t block = columns_of_block(*fp8_);
  return fp8_->rounding != Rounding::f16 && cols % kCodedBlock == 0 && (fp8_->column_phase + col_) % kCodedBlock == 0 &&
         block >= kCodedBlock && std::has_single_bit(block);
}

bool WeightView::scales_are_powers() const { return fp8_ != nullptr && fp8_->scales_are_powers(); }

template <Scales scales>
Fp8Rows<scales> WeightView::fp8_rows() const {
  const Fp8Weight& w = *fp8_;
  return {.codes = w.codes.as<uint8_t>() + row_ * w.codes.pitch + col_,
          .pitch = w.codes.pitch,
          .scales = w.scales.as<float>(),
          .scale_pitch = w.scales.pitch,
          .scale_row = w.scale_row.as<int32_t>() + row_,
          .phase = w.column_phase + col_,
          .shift = std::countr_zero(columns_of_block(w))};
}
template Fp8Rows<Scales::any> WeightView::fp8_rows() const;
template Fp8Rows<Scales::rounded> WeightView::fp8_rows() const;
template Fp8Rows<Scales::powers> WeightView::fp8_rows() const;

template <bool narrow>
Nf4Rows<narrow> WeightView::nf4_rows() const {
  const Nf4Weight& w = *nf4_;
  require(col_ % kNf4Block == 0, "NF4 is read from the beginning of a block");
  return {.codes = w.codes.as<uint8_t>() + row_ * w.codes.pitch + col_ / 2,
          .pitch = w.codes.pitch,
          .absmax = w.absmax.as<float>() + row_ * w.absmax.pitch + col_ / kNf4Block,
          .absmax_pitch = w.absmax.pitch};
}
template Nf4Rows<false> WeightView::nf4_rows() const;
template Nf4Rows<true> WeightView::nf4_rows() const;

void WeightView::read_row(int64_t row, DType computing, Tensor to) const {
  if (fp8_ != nullptr) return read_fp8(*fp8_, row_ + row, col_, roundings_of(fp8_->rounding, computing), to);
  if (nf4_ != nullptr) return read_nf4(*nf4_, row_ + row, col_, roundings_of(nf4_->rounding, computing), to);
  const Tensor from = values().rows_from(row, 1);
  if (from.dtype == to.dtype) {
    std::memcpy(to.data, from.data, static_cast<size_t>(from.bytes()));
  } else {
    map_row(
        from.cols, [](Vec v) { return v; }, to.as<float>(), from.as<bf16>());
  }
}

void WeightView::read(DType computing, Tensor to) const {
  for (int64_t r = 0; r < rows; ++r) read_row(r, computing, to.rows_from(r, 1));
}

}  // namespace drover::cpu
