// The low-rank terms that adapters add to a linear (Hu et al. 2021), as
// Backend::linear takes them:
//   y[:, column…] += u·bᵀ,  u = scale·drop(x)·aᵀ
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/tensor.h"

namespace drover {

class Backend;

// Dropout decides by global names, so that the mesh and the packing do not matter: keep element (document, position,
// column) iff its uniform draw is >= p; kept values are divided by 1-p. The key mixes seed, step, global layer and
// module.
struct DropoutMask {
  uint64_t key = 0;
  float p = 0;
  Tensor documents;           // (T) i32 document ordinal of each token
  Tensor positions;           // (T) i32 position in its document
  int64_t column_offset = 0;  // global index of column 0
};

// One term: columns [column, column + b.rows) of y get u·bᵀ.
struct LowRank {
  Tensor a;            // (r, in) float
  Tensor b;            // (out of this member, r) float
  float scale = 1;     // of u
  int64_t column = 0;  // where the member's outputs begin in y
  DropoutMask mask;    // of x; p == 0: none
};

// All terms of a linear.
struct LowRankTerms {
  std::span<const LowRank> terms;
  Tensor u;        // (T, Σ r) float, written: the terms' u side by side, which their backward reads
  Tensor dropped;  // (T, in) of x's dtype, overwritten: a term's drop(x); empty where no term has a mask
};

// Rows that stand next to each other and have the same terms.
struct LinearPart {
  int64_t rows = 0;
  LowRankTerms low_rank;  // of these rows
};

// What one term takes part in in its linear's backward; its outputs are columns [column, column + b.rows) of dy.
struct LowRankGradient {
  Tensor u;         // (T, r) float, as the forward had it
  Tensor b;         // (out of this member, r) float
  Tensor grad_b;    // (out of this member, r) f32
  float scale = 1;  // that u has and v gets
  int64_t column = 0;
};

// Neighbouring terms whose u are one product: of one scale, without masks, with their a one under another.
struct LowRankRun {
  Tensor a;  // (r of all, in)
  float scale = 1;
  DropoutMask mask;
  int64_t column = 0;  // of u
};
std::vector<LowRankRun> low_rank_runs(std::span<const LowRank> terms);

// u (T, run.a.rows) = scale·drop(x)·aᵀ
void low_rank_input(Backend& backend, Tensor x, const LowRankRun& run, Tensor dropped, Tensor u);

}  // namespace drover
