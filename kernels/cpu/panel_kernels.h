// The loops of PanelProduct for each instruction set. Operands are f32 or bf16 and are widened while they are packed:
//   rows     panels of PanelKernels::rows rows of op(a): number l of row i of a panel at l·rows + i
//   columns  a band of at most PanelKernels::columns columns of op(b): number l of column j at l·width + j, where width
//            is the columns in whole vectors
// Numbers run from `begin` on; behind `count` of them, up to a whole vector (kNumbers at most), zeros are written.
#pragma once
#include <span>

#include "kernels/backend.h"

namespace drover::cpu {

inline constexpr int64_t kNumbers = 16;
inline constexpr int64_t whole_numbers(int64_t n) { return (n + kNumbers - 1) / kNumbers * kNumbers; }

struct PanelSource {
  Tensor matrix;
  bool across = false;           // a row of op(a), or a column of op(b), is a column of the matrix
  int64_t first = 0, lines = 0;  // rows of op(a), or columns of op(b)
  int64_t begin = 0, count = 0;  // of the sum's index
};

// Sums of some panels by one band: numbers [begin, begin + count) of the panels times as many of the band.
struct BandPart {
  int64_t begin, count;
  const float* columns;
};
struct Band {
  const float* panels;  // the first one
  int64_t depth;        // numbers of a row there
  std::span<const BandPart> parts;
  // Sums so far, (panels·rows, width): read unless `first`, written unless `last`.
  float* sums;
  bool first, last;
  // Where it is the last: c = alpha·sums + beta·c, rounded once.  c (rows, columns of the band), f32 or bf16
  float alpha, beta;
  Tensor c;
  bool c_across;  // c is (columns of the band, rows)
  int64_t rows() const { return c_across ? c.cols : c.rows; }
  int64_t columns() const { return c_across ? c.rows : c.cols; }
};

struct PanelKernels {
  int64_t rows, columns, lanes;
  int64_t whole_vectors(int64_t n) const { return (n + lanes - 1) / lanes * lanes; }
  // Panels of `depth` numbers a row, one behind the other; zeros in the last one's other rows.
  void (*pack_rows)(const PanelSource& a, int64_t depth, float* panels);
  void (*pack_columns)(const PanelSource& b, float* band);
  void (*multiply)(const Band& band);
};

namespace avx2 {
extern const PanelKernels kPanelKernels;
}
namespace avx512 {
extern const PanelKernels kPanelKernels;
}

}  // namespace drover::cpu
