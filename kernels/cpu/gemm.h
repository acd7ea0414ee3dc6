// Matrix products on oneDNN. Where the CPU multiplies bf16 fast (isa.h) bf16 operands go to its matmul primitive as
// they are; elsewhere they are widened to fp32 panels in bounded scratch and multiplied by sgemm. Accumulation is fp32
// either way.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/weight_view.h"

namespace drover::cpu {

struct LowRankProduct {  // columns [column, column + b.rows) of y's rows [row, row + u.rows) get u·bᵀ
  Tensor u, b;
  int64_t column = 0;
  int64_t row = 0;  // only RowProduct takes others than 0
};

// y = tile (+ y), rounded once.
void round_tile(Tensor tile, bool accumulate, Tensor y, int threads);

class Gemm {
 public:
  explicit Gemm(int threads);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  int64_t workspace_bytes() const;
  bool multiplies_bf16() const { return native_bf16_; }

  void gemm(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c);
  void linear(Tensor x, const WeightView& w, std::span<const LowRankProduct> low_rank, bool accumulate, Tensor y);
  void linear_dx(Tensor dy, const WeightView& w, Tensor v, Tensor a, Tensor dx);

  // The same through oneDNN's matmul primitive, operands as they are; false where beta is neither 0 nor 1. dnnl::error
  // where the CPU lacks the dtype.
  bool multiply_primitive(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c);

 private:
  struct Primitives;
  // c (f32) = alpha·op(a)·op(b) + beta·c for operands of any float dtype.
  void multiply(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c);
  void multiply_widened(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c);
  DType panel_dtype(Tensor x) const;
  Tensor panel(const WeightView& w, Tensor x);
  void multiply_dx(Tensor dy, const WeightView& w, Tensor dx);
  void few_rows(Tensor x, Tensor w, std::span<const LowRankProduct> low_rank, bool accumulate, Tensor y);
  bool native_bf16_works();

  int threads_;
  bool native_bf16_ = false;
  std::unique_ptr<Primitives> primitives_;
  std::unique_ptr<float[]> panel_a_, panel_b_, tile_;  // held by the process only once they are written
};

}  // namespace drover::cpu
