// What products read of a weight: dense rows as they lie, or codes that are widened a panel at a time. A panel's values
// are those of the dequantised weight, rounded as it says (Rounding) and then to the dtype that computes, so that a
// product has the same operands whatever the CPU multiplies.
#pragma once
#include <optional>

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

  // Whether add_streamed of row_kernels.h takes its rows as they lie.
  bool streams() const { return fp8_ == nullptr || fp8_rows(DType::f32).has_value(); }
  bool dense() const { return fp8_ == nullptr && nf4_ == nullptr; }
  Tensor values() const;  // of a dense one
  // Of codes whose scales belong to whole runs of columns, a power of two of them and at least kCodedBlock; nothing
  // where they do not.
  std::optional<Fp8Rows> fp8_rows(DType computing) const;
  std::optional<Nf4Rows> nf4_rows(DType computing) const;
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
