// Matrix products in fp32 of f32 and bf16 operands, with low-rank terms and one rounding at the result:
//   c = round(alpha·op(a)·op(b) + Σ u·op(b') + beta·c)
// One operand is packed for all threads: op(b), or op(a) where it has a few rows. A thread packs a block of the other
// one, which stays in its second-level cache, and multiplies by it, sums in registers (Goto & van de Geijn 2008). A sum
// is one chain of fused multiply-adds in rising order, so its bits depend neither on threads nor on the other rows and
// columns.
#pragma once
#include <span>
#include <vector>

#include "kernels/cpu/lines.h"
#include "kernels/cpu/panel_kernels.h"

namespace drover::cpu {

// Columns [column, column + n) of c get u·op(b), n being op(b)'s columns.
struct PanelTerm {
  Tensor u;  // (m, r)
  Tensor b;
  Trans trans = Trans::no;
  int64_t column = 0;
  int64_t columns() const { return trans == Trans::no ? b.cols : b.rows; }
  bool meets(int64_t begin, int64_t count) const { return begin < column + columns() && column < begin + count; }
};

class PanelProduct {
 public:
  static constexpr int64_t kLongestSum = 8192;  // longer ones into f32 are computed in parts
  explicit PanelProduct(int threads);
  // What is packed of at most so many rows, or of 256 columns, and kLongestSum numbers of each: a page is the process's
  // own only once it is written. Longer sums into bf16 take more, up to what any number of rows takes. Without what a
  // thread keeps (attention_common.h).
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
  struct Product;
  struct Task;
  struct Side;
  void multiply_all(const Call& call, bool c_across);
  void multiply_few_rows(const Product& product, int64_t row, int64_t count);
  void multiply_blocks(const Product& product, int64_t block_rows);
  void pack_group(const Product& product, const Task& group);
  void multiply_group(const Product& product, const Task& group, int64_t block_rows);
  void multiply_block(const Product& product, const Task& task, float* bands) const;
  void pack_rows(const Product& product, const Task& task, int64_t begin, int64_t count, const Side& to) const;
  void pack_columns(const Product& product, const Task& task, int64_t begin, int64_t count, const Side& to) const;
  void pack_term(const PanelTerm& term, int64_t column, int64_t columns, float* to) const;
  void multiply(const Product& product, const Task& task, int64_t begin, const Side& rows, const Side& columns,
                float* sums) const;

  int threads_;
  const PanelKernels& kernels_;
  Lines memory_;
  float* packed_;  // there; held by the process only once it is written
};

}  // namespace drover::cpu
