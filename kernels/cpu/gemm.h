// Matrix products. Where the CPU multiplies bf16 fast (isa.h) bf16 operands are left to oneDNN (primitive_product.h);
// everything else is multiplied in fp32 (panel_product.h). Accumulation is fp32 either way.
#pragma once
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/panel_product.h"
#include "kernels/cpu/primitive_product.h"
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

  void expect_codes();  // weights of them: the memory that they are widened into is counted from now on
  int64_t workspace_bytes(int64_t rows = std::numeric_limits<int64_t>::max()) const;  // Backend's
  bool multiplies_bf16() const { return native_bf16_; }
  int64_t primitives_built() const { return primitives_.built(); }

  void gemm(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c);
  void linear(Tensor x, const WeightView& w, std::span<const LowRankProduct> low_rank, bool accumulate, Tensor y);
  void linear_dx(Tensor dy, const WeightView& w, Tensor v, Tensor a, Tensor dx);

 private:
  // c = alpha·op(a)·op(b) + beta·c for operands of any float dtype; c is f32, or bf16 where nothing is native. It may
  // have more rows than op(a), in_pieces() of them, of which the last ones are undefined then; else it is not the tile.
  void multiply(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c);
  bool multiply_native(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c);
  void multiply_without_room(const PrimitiveProduct::Call& call);
  DType panel_dtype(Tensor x) const;
  Tensor panel(const WeightView& w, Tensor x);
  void linear_native(Tensor x, const WeightView& w, std::span<const LowRankProduct> low_rank, bool accumulate,
                     Tensor y);
  void multiply_dx(Tensor dy, const WeightView& w, Tensor dx);
  void few_rows(Tensor x, Tensor w, std::span<const LowRankProduct> low_rank, bool accumulate, Tensor y);
  bool native_bf16_works();

  int threads_;
  bool native_bf16_ = false;
  int64_t tile_floats_ = 0;
  PanelProduct panels_;
  PrimitiveProduct primitives_;
  std::unique_ptr<float[]> panel_, tile_;  // held by the process only once they are written
};

}  // namespace drover::cpu
