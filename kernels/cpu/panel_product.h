// Matrix products in fp32 of f32 and bf16 operands, with low-rank terms and one rounding at the result:
//   c = round(alpha·op(a)·op(b) + Σ u·op(b') + beta·c)
// op(a) is packed into panels that all threads read; a thread packs a band of op(b)'s columns and multiplies panels by
// it, sums in registers (Goto & van de Geijn 2008). A sum is one chain of fused multiply-adds in rising order, so its
// bits depend neither on threads nor on the other rows and columns.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "kernels/cpu/panel_kernels.h"

namespace drover::cpu {

// Columns [column, column + n) of c get u·op(b), n being op(b)'s columns.
struct PanelTerm {
  Tensor u;  // (m, r)
  Tensor b;
  Trans trans = Trans::no;
  int64_t column = 0;
  int64_t columns() const { return trans == Trans::no ? b.cols : b.rows; }
};

class PanelProduct {
 public:
  // Longer sums into f32 are computed in parts; into bf16 they are packed for few rows at a time, which costs.
  static constexpr int64_t kLongestSum = 8192;
  explicit PanelProduct(int threads);
  // What is packed of at most so many rows and kLongestSum numbers of each: a page is the process's own only once it is
  // written. Longer sums into bf16 take more, up to what any number of rows takes. Without what a thread keeps
  // (attention_common.h).
  int64_t workspace_bytes(int64_t rows) const;

  struct Call {
    Trans ta, tb;
    float alpha;
    Tensor a, b;
    float beta;
    Tensor c;
    std::span<const PanelTerm> terms = {};
  };
  void operator()(const Call& call);

 private:
  struct Rows;
  void multiply_all(const Call& call, bool c_across);
  void pack(const Rows& rows);
  void multiply(const Rows& rows);
  void pack_term(const PanelTerm& term, int64_t column, int64_t columns, float* to, float* some) const;
  void multiply_band(const Rows& rows, int64_t column, int64_t panel, int64_t panels) const;

  int threads_;
  const PanelKernels& kernels_;
  std::unique_ptr<float[]> packed_;  // held by the process only once it is written
};

}  // namespace drover::cpu
