// Products for generation: y = x·wᵀ whose every row has the same bits in any company. An output is one chain of
// additions in fp32 over the sum's index, in rising order and whatever the number of rows, so that a token's values do
// not depend on which other tokens share its pass. Where the CPU multiplies bf16 (AVX512_BF16) a link of the chain is a
// pair of products, elsewhere one fused multiply-add of widened values.
#pragma once
#include <cstddef>
#include <memory>
#include <span>

#include "kernels/cpu/gemm.h"

namespace drover::cpu {

class RowProduct {
 public:
  explicit RowProduct(int threads);

  int64_t workspace_bytes() const;

  // y = alpha·x·wᵀ + Σ u·bᵀ (+ y where accumulate), rounded once.  x (T,in), w (out,in), y (T,out), any float; the
  // terms are added. The terms' sums continue the chain of x·wᵀ; alpha is 1 where there are any.
  void linear(float alpha, Tensor x, Tensor w, std::span<const LowRankProduct> low_rank, bool accumulate, Tensor y);

 private:
  void panels(float alpha, Tensor x, Tensor w, std::span<const LowRankProduct> low_rank, bool accumulate, Tensor y);
  Tensor as_read(Tensor x, Tensor w, int64_t& wide_used);  // x itself, or widened in `wide_`

  int threads_;
  bool multiplies_bf16_;
  std::unique_ptr<float[]> wide_;         // held by the process only once it is written
  std::unique_ptr<std::byte[]> scratch_;  // of each thread: the sums of a panel of outputs, and its weights
};

}  // namespace drover::cpu
