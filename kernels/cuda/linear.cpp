// Linears and products: a streaming kernel for a few rows, else cuBLASLt. What that does not take is multiplied through
// fp32 panels: two dtypes in one product, and bf16 results to which several products add up, rounded once. No step of a
// model needs them: its inputs are of one dtype and its low-rank terms lie in strips (weight.h), so that each linear is
// one product.
#include <algorithm>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/gemv.h"

namespace drover::cuda {

namespace {

// Rows of op(t), and columns likewise, as a view of t.
Tensor op_rows(Trans trans, Tensor t, int64_t begin, int64_t count) {
  return trans == Trans::no ? t.rows_from(begin, count) : t.columns(begin, count);
}
Tensor op_columns(Trans trans, Tensor t, int64_t begin, int64_t count) {
  return trans == Trans::no ? t.columns(begin, count) : t.rows_from(begin, count);
}

int64_t rows_per_panel(int64_t cols) {
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
};

}  // namespace

void CudaBackend::do_gemm(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
  Products product{*this, *matmul_, stream_};
  if (Matmul::takes(a.dtype, b.dtype, c.dtype)) return product(ta, tb, alpha, a, b, beta, c);
  product.rounded_once(c, beta != 0, [&](Tensor rows, int64_t begin) {
    product(ta, tb, alpha, op_rows(ta, a, begin, rows.rows), b, beta, rows);
  });
}

std::unique_ptr<Weight> CudaBackend::make_weight(Arena& arena, const WeightShape& shape) {
  std::unique_ptr<Weight> made = Backend::make_weight(arena, shape);
  const StripWeight& weight = static_cast<const StripWeight&>(*made);
  if (shape.adapter_rank > 0) {
    Tensor below = weight.below();
    below.cols = below.pitch;
    zero(below);
    zero(weight.strip_columns());
  }
  return made;
}

// Each part reads the weight again.
void CudaBackend::do_linear_of_parts(Tensor x, const Weight& w, std::span<const LinearPart> parts, bool accumulate,
                                     Tensor y) {
  Backend::do_linear_of_parts(x, w, parts, accumulate, y);
}

void CudaBackend::do_linear(Tensor x, const Weight& weight, const LowRankTerms& low_rank, bool accumulate, Tensor y,
                            SumOrder) {
  const Tensor w = static_cast<const DenseWeight&>(weight).values;
  const std::span<const LowRank> terms = low_rank.terms;
  const std::vector<LowRankRun> runs = low_rank_runs(terms);
  const Augmented wide = augmented_forward(x, w, terms);
  LinearPaths::Count& path = paths_.forward[{w.cols, w.rows}];
  ++(terms.empty() ? path.plain : wide.possible ? path.fused : path.unfused);
  const float beta = accumulate ? 1.0f : 0.0f;
  if (wide.possible) {
    if (!terms.empty()) fill_strip(wide.x.columns(x.cols, wide.x.cols - x.cols), x, w, runs, low_rank);
    return do_gemm(Trans::no, Trans::yes, 1, wide.x, wide.w, beta, y);
  }
  for (const LowRankRun& run : runs) {
    low_rank_input(*this, x, run, low_rank.dropped, low_rank.u.columns(run.column, run.a.rows));
  }
  Products product{*this, *matmul_, stream_};
  product.rounded_once(y, accumulate, [&](Tensor rows, int64_t begin) {
    product(Trans::no, Trans::yes, 1, x.rows_from(begin, rows.rows), w, beta, rows);
    int64_t column = 0;
    for (const LowRank& term : terms) {
      const Tensor u = low_rank.u.columns(column, term.a.rows).rows_from(begin, rows.rows);
      product(Trans::no, Trans::yes, 1, u, term.b, 1, rows.columns(term.column, term.b.rows));
      column += term.a.rows;
    }
  });
}

// strip (T, ≥ Σ r): the columns behind x's. All runs' u side by side, then zeros; and u once more where it is kept.
void CudaBackend::fill_strip(Tensor strip, Tensor x, Tensor w, std::span<const LowRankRun> runs,
                             const LowRankTerms& low_rank) {
  const int64_t rank = low_rank.u.cols;
  if (runs.size() == 1) {  // with all rows below w, of which those beyond the rank are zero
    LowRankRun all = runs.front();
    all.a = w.rows_from(w.rows, strip.cols);
    low_rank_input(*this, x, all, low_rank.dropped, strip);
  } else {
    if (strip.cols > rank) zero(strip.columns(rank, strip.cols - rank));
    for (const LowRankRun& run : runs) {
      low_rank_input(*this, x, run, low_rank.dropped, strip.columns(run.column, run.a.rows));
    }
  }
  copy(strip.columns(0, rank), low_rank.u);
}

void CudaBackend::do_linear_dx(Tensor dy, const Weight& weight, Tensor v, Tensor a, Tensor dx) {
  const Tensor w = static_cast<const DenseWeight&>(weight).values;
  LinearPaths::Count& path = paths_.backward[{w.cols, w.rows}];
  const Augmented wide = augmented_backward(dy, w, v, a);
  ++(v.empty() ? path.plain : wide.possible ? path.fused : path.unfused);
  if (wide.possible) return do_gemm(Trans::no, Trans::no, 1, wide.x, wide.w, 0, dx);
  Products product{*this, *matmul_, stream_};
  product.rounded_once(dx, false, [&](Tensor rows, int64_t begin) {
    product(Trans::no, Trans::no, 1, dy.rows_from(begin, rows.rows), w, 0, rows);
    product(Trans::no, Trans::no, 1, v.rows_from(begin, rows.rows), a, 1, rows);
  });
}

}  // namespace drover::cuda
