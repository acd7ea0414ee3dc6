// Products in fp8 (kernels/fp8_products.h) on a CPU, which has none: what a GPU computes, so that training with it is
// tested without one. A code is exact in bf16 and in fp32, and so is the product of two; of the sums, only the order is
// another.
#pragma once
#include <memory>
#include <span>

#include "kernels/cpu/gemm.h"
#include "kernels/fp8_products.h"

namespace drover::cpu {

class Fp8Product {
 public:
  Fp8Product(Gemm& gemm, int threads) : gemm_(gemm), threads_(threads) {}

  void expect();  // products: their memory is counted from now on, and taken when they are first computed
  int64_t workspace_bytes() const { return expected_ ? kWorkspaceBytes : 0; }

  // As Gemm has them.
  void linear(Tensor x, const Fp8Weight& w, std::span<const LowRankProduct> low_rank, bool accumulate, Tensor y);
  void linear_dx(Tensor dy, const Fp8Weight& w, Tensor v, Tensor a, Tensor dx);

 private:
  static constexpr int64_t kCodes = int64_t{4} << 20;  // of some rows of x or dy
  static constexpr int64_t kPanel = int64_t{2} << 20;  // codes of a weight
  static constexpr int64_t kTileRows = 256, kTileColumns = 512;
  static constexpr int64_t kScales = int64_t{1} << 20;
  static constexpr int64_t kWorkspaceBytes =
      (kCodes + kPanel + kScales + 2 * kTileRows * kTileColumns) * static_cast<int64_t>(sizeof(float));

  // Rows of x or dy as codes, which lie as numbers, and their scales.
  struct Coded {
    Tensor codes;   // (rows, cols)
    Tensor scales;  // (rows, runs) f32
    Coded rows_from(int64_t begin, int64_t count) const {
      return {codes.rows_from(begin, count), scales.rows_from(begin, count)};
    }
  };
  // Columns of w that are summed over or not, as numbers, and their scale for each run.
  struct Panel {
    Trans trans;
    Tensor codes;   // (columns, cols of Coded), or transposed
    Tensor scales;  // (runs, columns) f32
  };

  DType dtype() const { return gemm_.multiplies_bf16() ? DType::bf16 : DType::f32; }
  int64_t rows_at_once(int64_t cols, size_t runs) const;
  int64_t columns_at_once(int64_t cols, size_t runs) const;
  // times: (cols) f32 that every row is multiplied by first; or empty.
  Coded quantise(Tensor x, Tensor times, std::span<const SumRun> runs, float bound);
  Panel rows_of(const Fp8Weight& w, int64_t begin, int64_t count, std::span<const SumRun> runs);
  Panel columns_of(const Fp8Weight& w, int64_t begin, int64_t count, std::span<const SumRun> runs);
  void multiply(const Coded& x, const Panel& w, std::span<const SumRun> runs, Tensor tile);
  Tensor tile(int64_t rows, int64_t cols) { return matrix(tile_.get(), rows, cols); }

  Gemm& gemm_;
  int threads_;
  bool expected_ = false;
  std::unique_ptr<float[]> codes_, panel_, scales_, panel_scales_, tile_, part_;
};

}  // namespace drover::cpu
