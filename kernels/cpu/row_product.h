// Products for generation: y = x·wᵀ whose every row has the same bits in any company. An output is summed in an order
// that depends on the sum's index only (row_kernels.h), whatever the number of rows, so that a token's values do not
// depend on which other tokens share its pass. Accumulation is fp32; bf16 is multiplied as it is where the CPU does
// that fast (AVX512_BF16, isa.h), and widened elsewhere. Codes are widened to fp32, and rounded only where their file
// does.
#pragma once
#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/lines.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/weight_view.h"

namespace drover::cpu {

struct LowRankInput {  // u = scale·x·aᵀ, of x's rows [row, row + u.rows)
  Tensor u, a;
  float scale = 1;
  int64_t row = 0;
};

class RowProduct {
 public:
  explicit RowProduct(int threads);

  // y = x·wᵀ + Σ u·bᵀ (+ y where accumulate), rounded once, behind the inputs' u.  x (T,in), w (out,in), y (T,out),
  // any float; w of any format.
  struct Linear {
    Tensor x;
    WeightView w;
    std::span<const LowRankInput> inputs;
    std::span<const LowRankProduct> low_rank;
    bool accumulate = false;
    Tensor y;
  };
  void linear(const Linear& linear);

 private:
  DType read_dtype(Tensor x, const WeightView& w) const;
  Tensor as_read(Tensor x, const WeightView& w, std::byte*& free) const;
  using CopyInOrder = void (*)(const float* from, int64_t n, float* to);
  CopyInOrder order_of(const WeightView& w) const;
  Tensor in_order(Tensor x, CopyInOrder copy, std::byte*& free) const;
  // A product for rows that fit the scratch: x as `as_read` gives it, and for more than a few rows the terms' u too.
  struct Call {
    float alpha;
    Tensor x;
    WeightView w;
    std::span<const LowRankProduct> low_rank;
    bool accumulate;
    Tensor y;
  };
  void some_rows(const Linear& linear, int64_t begin, int64_t count);
  bool at_once(const Linear& linear, Tensor rows) const;
  void inputs_of_thread(std::span<const Call> inputs) const;
  void panels(std::span<const Call> inputs, const Call& call) const;
  void outputs_of_thread(const Call& call) const;
  std::vector<LowRankProduct> terms_of_thread(const Call& call, std::byte* free) const;
  void outputs(const Call& call, int64_t begin, int64_t end, std::byte* scratch) const;
  void streamed(const Call& call, int64_t begin, int64_t end, std::byte* scratch) const;
  void copied(const Call& call, int64_t begin, int64_t end, std::byte* scratch) const;
  void ask_for_terms(const Call& call, int64_t begin, int64_t width) const;
  void complete(const Call& call, int64_t begin, int64_t width, float* sums, std::byte* copy) const;
  void add_thin(Tensor x, Tensor w, float* sums) const;
  struct Stream {
    WeightView w = Tensor{};
    float* sums = nullptr;
  };
  static std::array<Stream, kStreams> in_streams(const WeightView& w, float* sums);
  void add_streamed(Tensor x, const std::array<Stream, kStreams>& streams) const;
  void add_copied(Tensor x, const WeightView& w, float* sums, std::byte* copy) const;
  void copy_block(const WeightView& w, Tensor to) const;

  int threads_;
  Isa isa_;
  Lines rows_;  // of x and the terms' u
  // Of each thread: the sums of a panel of outputs, behind those of few rows their copies of u, and the panel's
  // weights, with AVX2 and many rows packed behind that.
  Lines scratch_;
};

}  // namespace drover::cpu
