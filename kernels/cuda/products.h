// Products of any two dtypes into any third, for what cuBLASLt does not take as it is (linear.cpp says when).
#pragma once
#include <algorithm>

#include "kernels/cuda/gemv.h"
#include "kernels/cuda/matmul.h"
#include "kernels/low_rank.h"

namespace drover::cuda {

// Rows of op(t), and columns likewise, as a view of t.
inline Tensor op_rows(Trans trans, Tensor t, int64_t begin, int64_t count) {
  return trans == Trans::no ? t.rows_from(begin, count) : t.columns(begin, count);
}
inline Tensor op_columns(Trans trans, Tensor t, int64_t begin, int64_t count) {
  return trans == Trans::no ? t.columns(begin, count) : t.rows_from(begin, count);
}

inline int64_t rows_per_panel(int64_t cols) {
  require(cols <= Matmul::kPanelFloats, "a row fits an fp32 panel");
  return Matmul::kPanelFloats / std::max<int64_t>(cols, 1);
}

struct Products {
  Backend& backend;
  Matmul& matmul;
  cudaStream_t stream;

  void one_dtype(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
    if (ta == Trans::no && tb == Trans::yes && gemv_takes(a, b)) return gemv(stream, alpha, a, b, beta, c);
    matmul(ta, tb, alpha, a, b, beta, c);
  }

  // The bf16 operand is widened, some of its rows at a time; they are rows or columns of c, or terms of the sum.
  void two_dtypes(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
    const bool left = a.dtype == DType::bf16, summed = left == (left ? ta == Trans::yes : tb == Trans::yes);
    const Tensor narrow = left ? a : b;
    const int64_t step = rows_per_panel(narrow.cols);
    for (int64_t begin = 0; begin < narrow.rows; begin += step) {
      const int64_t count = std::min(step, narrow.rows - begin);
      const Tensor wide = matmul.operand_panel(count, narrow.cols);
      backend.copy(narrow.rows_from(begin, count), wide);
      Tensor other = left ? b : a, out = c;
      if (summed) {
        other = left ? op_rows(tb, b, begin, count) : op_columns(ta, a, begin, count);
      } else {
        out = left ? c.rows_from(begin, count) : c.columns(begin, count);
      }
      one_dtype(ta, tb, alpha, left ? wide : other, left ? other : wide, summed && begin > 0 ? 1 : beta, out);
    }
  }

  // c is f32, or cuBLASLt takes all three as they are.
  void operator()(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
    const int64_t k = ta == Trans::no ? a.cols : a.rows;
    if (a.dtype == b.dtype || k == 0) return one_dtype(ta, tb, alpha, a, b, beta, c);
    two_dtypes(ta, tb, alpha, a, b, beta, c);
  }

  // Calls add(rows of y in fp32, index of the first); what it leaves there is rounded into y. With `keep` the rows hold
  // y's values before.
  template <typename Add>
  void rounded_once(Tensor y, bool keep, Add&& add) {
    if (y.dtype == DType::f32) return add(y, 0);
    const int64_t step = rows_per_panel(y.cols);
    for (int64_t begin = 0; begin < y.rows; begin += step) {
      const Tensor out = y.rows_from(begin, std::min(step, y.rows - begin)),
                   tile = matmul.result_panel(out.rows, out.cols);
      if (keep) backend.copy(out, tile);
      add(tile, begin);
      backend.copy(tile, out);
    }
  }

  // The same, some columns of y at a time: the first one's index is that of a row of w in y = x·wᵀ.
  template <typename Add>
  void rounded_once_by_columns(Tensor y, bool keep, Add&& add) {
    if (y.dtype == DType::f32) return add(y, 0);
    const int64_t step = rows_per_panel(y.rows);
    for (int64_t begin = 0; begin < y.cols; begin += step) {
      const Tensor out = y.columns(begin, std::min(step, y.cols - begin)),
                   tile = matmul.result_panel(out.rows, out.cols);
      if (keep) backend.copy(out, tile);
      add(tile, begin);
      backend.copy(tile, out);
    }
  }
};

// A term's columns of y among [begin, begin + count).
struct Shared {
  int64_t begin, count;  // of y
};
inline Shared shared_columns(const LowRank& term, int64_t begin, int64_t count) {
  const int64_t first = std::max(begin, term.column), end = std::min(begin + count, term.column + term.b.rows);
  return {first, std::max<int64_t>(end - first, 0)};
}

// y columns [begin, begin + y.cols) += the terms
inline void add_terms(Products& product, const LowRankTerms& low_rank, int64_t begin, Tensor y) {
  int64_t column = 0;
  for (const LowRank& term : low_rank.terms) {
    const Shared shared = shared_columns(term, begin, y.cols);
    const Tensor u = low_rank.u.columns(column, term.a.rows);
    if (shared.count > 0) {
      product(Trans::no, Trans::yes, 1, u, term.b.rows_from(shared.begin - term.column, shared.count), 1,
              y.columns(shared.begin - begin, shared.count));
    }
    column += term.a.rows;
  }
}

}  // namespace drover::cuda
