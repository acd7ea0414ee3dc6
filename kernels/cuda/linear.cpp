// Linears and products: a streaming kernel for a few rows, else cuBLASLt. What that does not take is multiplied through
// fp32 panels: two dtypes in one product, and bf16 results to which several products add up, rounded once. No step of a
// model needs them: its inputs are of one dtype and its low-rank terms lie in strips (weight.h), so that each linear is
// one product.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/products.h"

namespace drover::cuda {

void CudaBackend::do_gemm(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
  Products product{*this, *matmul_, stream_};
  if (Matmul::takes(a.dtype, b.dtype, c.dtype)) return product(ta, tb, alpha, a, b, beta, c);
  product.rounded_once(c, beta != 0, [&](Tensor rows, int64_t begin) {
    product(ta, tb, alpha, op_rows(ta, a, begin, rows.rows), b, beta, rows);
  });
}

std::unique_ptr<Weight> CudaBackend::make_weight(Arena& arena, const WeightShape& shape) {
  std::unique_ptr<Weight> made = Backend::make_weight(arena, shape);
  if (!is_dense(shape.format)) {
    dequantiser_->expect(*made);
    if (shape.products == drover::Products::fp8) fp8_operands_->expect();
    return made;
  }
  const StripWeight& weight = static_cast<const StripWeight&>(*made);
  if (shape.adapter_rank > 0) {
    Tensor below = weight.below();
    below.cols = below.pitch;
    zero(below);
    zero(weight.strip_columns());
  }
  return made;
}

// One product of all rows with the frozen weight, into which each part's terms are added before the one rounding: by
// columns of y, so that the weight is read once.
void CudaBackend::do_linear_of_parts(Tensor x, const Weight& weight, std::span<const LinearPart> parts, bool accumulate,
                                     Tensor y) {
  int64_t begin = 0;
  for (const LinearPart& part : parts) {
    const LowRankTerms& low_rank = part.low_rank;
    for (const LowRankRun& run : low_rank_runs(low_rank.terms)) {
      low_rank_input(*this, x.rows_from(begin, part.rows), run, {}, low_rank.u.columns(run.column, run.a.rows));
    }
    begin += part.rows;
  }
  ++paths_.forward[{weight.in(), weight.out()}].unfused;
  Products product{*this, *matmul_, stream_};
  const AddTerms add = [&](Tensor tile, int64_t column) {
    int64_t row = 0;
    for (const LinearPart& part : parts) {
      add_terms(product, part.low_rank, column, tile.rows_from(row, part.rows));
      row += part.rows;
    }
  };
  if (!is_dense(weight.format())) return quantised_with_terms(x, weight, add, accumulate, y);
  const Tensor w = static_cast<const DenseWeight&>(weight).values;
  product.rounded_once_by_columns(y, accumulate, [&](Tensor tile, int64_t column) {
    product(Trans::no, Trans::yes, 1, x, w.rows_from(column, tile.cols), accumulate ? 1.0f : 0.0f, tile);
    add(tile, column);
  });
}

void CudaBackend::do_linear(Tensor x, const Weight& weight, const LowRankTerms& low_rank, bool accumulate, Tensor y,
                            SumOrder order) {
  if (weight.products() == drover::Products::fp8 && order == SumOrder::fastest)
    return linear_fp8(x, static_cast<const Fp8Weight&>(weight), low_rank, accumulate, y);
  if (!is_dense(weight.format())) return linear_quantised(x, weight, low_rank, accumulate, y);
  const Tensor w = static_cast<const DenseWeight&>(weight).values;
  const std::span<const LowRank> terms = low_rank.terms;
  const std::vector<LowRankRun> runs = low_rank_runs(terms);
  const Augmented wide = augmented_forward(x, w, terms);
  LinearPaths::Count& path = paths_.forward[{w.cols, w.rows}];
  ++(terms.empty() ? path.plain : wide.possible ? path.fused : path.unfused);
  const float beta = accumulate ? 1.0f : 0.0f;
  if (wide.possible) {
    const Tensor strip = wide.x.columns(x.cols, wide.x.cols - x.cols);
    if (!terms.empty()) fill_strip(strip, x, w.rows_from(w.rows, strip.cols), runs, low_rank);
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
// below: the rows under w, as many as the strip has columns, those beyond the rank zero; or empty.
void CudaBackend::fill_strip(Tensor strip, Tensor x, Tensor below, std::span<const LowRankRun> runs,
                             const LowRankTerms& low_rank) {
  const int64_t rank = low_rank.u.cols;
  if (runs.size() == 1 && !below.empty()) {
    LowRankRun all = runs.front();
    all.a = below;
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
  if (weight.products() == drover::Products::fp8)
    return linear_dx_fp8(dy, static_cast<const Fp8Weight&>(weight), v, a, dx);
  if (!is_dense(weight.format())) return linear_dx_quantised(dy, weight, v, a, dx);
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
