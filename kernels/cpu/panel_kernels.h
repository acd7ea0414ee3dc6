// The loops of PanelProduct for each instruction set. Operands are f32 or bf16 and are widened while they are packed:
//   rows     panels of PanelKernels::rows rows of op(a): number l of row i of a panel at l·rows + i
//   columns  bands of PanelKernels::columns columns of op(b): number l of column j of a band at l·width + j, where
//   width
//            is the columns in whole vectors, which are fewer in the last band
// Behind the last number zeros may be written, up to a multiple of kNumbers.
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

// Where packed lines lie: panels or bands of `depth` numbers a line, one behind the other.
struct Packed {
  float* data;
  int64_t depth;
  int64_t begin = 0;  // the first number that is written
};

// The sums of some panels by one band, which are made of parts of the sum's index.
struct BandPart {
  const float* rows;  // of the first panel
  const float* columns;
  int64_t count;
};
struct Band {
  int64_t depth;  // numbers of a panel's row
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
  // A result of so many columns is computed across, so that a band has no empty vectors: op(b) gives the panels then.
  int64_t few_columns;
  int64_t whole_vectors(int64_t n) const { return (n + lanes - 1) / lanes * lanes; }
  int64_t whole_bands(int64_t n) const { return (n + columns - 1) / columns * columns; }
  int64_t whole_panels(int64_t n) const { return (n + rows - 1) / rows * rows; }
  void (*pack_rows)(const PanelSource& a, const Packed& to);  // zeros in the last panel's other rows
  void (*pack_columns)(const PanelSource& b, const Packed& to);
  void (*multiply)(const Band& band);
};

namespace avx2 {
extern const PanelKernels kPanelKernels;
}
namespace avx512 {
extern const PanelKernels kPanelKernels;
}

}  // namespace drover::cpu
