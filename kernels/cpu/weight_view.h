// What products read of a weight: dense rows as they lie, or codes that are widened a panel at a time. A panel's values
// are those of the dequantised weight, rounded as it says (Rounding) and then to the dtype that is asked for: the one
// that computes (gemm.h), so that a product has the same operands whatever the CPU multiplies, or fp32 (row_product.h).
#pragma once

#include "kernels/cpu/coded_rows.h"
#include "kernels/quantised_weight.h"
#include "kernels/tensor.h"

namespace drover::cpu {

class WeightView {
 public:
  WeightView(Tensor values);  // (rows, cols), any float; NOLINT: a tensor of numbers is a weight that lies densely
  explicit WeightView(const Weight& weight);

  int64_t rows = 0, cols = 0;
  WeightView rows_from(int64_t begin, int64_t count) const;
  WeightView columns(int64_t begin, int64_t count) const;

  bool dense() const { return fp8_ == nullptr && nf4_ == nullptr; }
  Tensor values() const;  // of a dense one
  // Whether add_streamed of row_kernels.h takes its rows as they lie: dense ones, and codes whose scales belong to runs
  // of columns, a power of two of them and at least kCodedBlock, that are rounded to bf16 if at all.
  bool streams() const;
  bool is_fp8() const { return fp8_ != nullptr; }
  bool is_nf4() const { return nf4_ != nullptr; }
  bool narrow() const;  // whether the file of codes rounds their values to bf16
  bool scales_are_powers() const;
  template <Scales scales>
  Fp8Rows<scales> fp8_rows() const;
  template <bool narrow>
  Nf4Rows<narrow> nf4_rows() const;
  // to (rows, cols), of `computing` or, widened, f32: all values. A dense one's are copied.
  void read(DType computing, Tensor to) const;
  void read_row(int64_t row, DType computing, Tensor to) const;

 private:
  Tensor values_;
  const Fp8Weight* fp8_ = nullptr;
  const Nf4Weight* nf4_ = nullptr;
  int64_t row_ = 0, col_ = 0;  // of the weight
};

}  // namespace drover::cpu
