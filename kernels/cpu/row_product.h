// Products for generation: y = x·wᵀ whose every row has the same bits in any company. An output is summed in an order
// that depends on the sum's index only (row_kernels.h), whatever the number of rows, so that a token's values do not
// depend on which other tokens share its pass. Accumulation is fp32; bf16 is multiplied as it is where the CPU does
// that (AVX512_BF16), and widened elsewhere.
#pragma once
#include <cstddef>
#include <memory>
#include <span>

#include "kernels/cpu/gemm.h"

namespace drover::cpu {

class RowProduct {
 public:
  explicit RowProduct(int threads);

  // y = alpha·x·wᵀ + Σ u·bᵀ (+ y where accumulate), rounded once.  x (T,in), w (out,in), y (T,out), any float; the
  // terms as in Backend::linear. alpha is 1 where there are terms or y is added to.
  void linear(float alpha, Tensor x, Tensor w, std::span<const LowRankProduct> low_rank, bool accumulate, Tensor y);

 private:
  using Bytes = std::unique_ptr<std::byte[], void (*)(void*)>;
  static Bytes lines_of(int64_t bytes);  // at the beginning of a cache line
  enum class Isa : uint8_t { avx2, avx512, avx512_bf16 };
  static Isa best_isa();
  DType read_dtype(Tensor x, Tensor w) const;
  Tensor as_read(Tensor x, Tensor w, std::byte*& free) const;
  // A product for rows that fit the scratch, x and the terms' u as `as_read` gives them.
  struct Call {
    float alpha;
    Tensor x, w;
    std::span<const LowRankProduct> low_rank;
    bool accumulate;
    Tensor y;
  };
  void panels(const Call& call) const;
  void streamed(const Call& call, int64_t begin, int64_t end, std::byte* scratch) const;
  void copied(const Call& call, int64_t begin, int64_t end, std::byte* scratch) const;
  void complete(const Call& call, int64_t begin, int64_t width, float* sums, std::byte* copy) const;
  void add_streamed(Tensor x, Tensor w, float* sums, Tensor far, float* far_sums) const;
  void add_copied(Tensor x, Tensor w, float* sums, std::byte* copy) const;

  int threads_;
  Isa isa_;
  Bytes rows_{nullptr, nullptr};     // of x and the terms' u; held by the process only once they are written
  Bytes scratch_{nullptr, nullptr};  // of each thread: the sums of a panel of outputs, and its weights
};

}  // namespace drover::cpu
