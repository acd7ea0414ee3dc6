// Linears of frozen weights that are codes with scales. A few rows are multiplied by the codes as they are
// (gemv_quantised.h). For more, the weight is widened into a panel of x's dtype: for y all columns of some rows, which
// are columns of y, and for dx all rows of some columns, which are columns of dx, so that no sum is cut. The panel has
// strips of its own for B and A (weight.h): where x and dy have room for u and v, the low-rank term rides in the
// product, as it does next to a dense weight.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/gemv_quantised.h"
#include "kernels/cuda/products.h"

namespace drover::cuda {

namespace {

// strip (rows of the panel, ≥ Σ r): the B of the panel's rows, which begin with `begin`, and zeros.
void fill_b(Backend& backend, std::span<const LowRank> terms, int64_t begin, Tensor strip) {
  backend.zero(strip);
  int64_t column = 0;
  for (const LowRank& term : terms) {
    const Shared shared = shared_columns(term, begin, strip.rows);
    if (shared.count > 0) {
      backend.copy(term.b.rows_from(shared.begin - term.column, shared.count),
                   strip.rows_from(shared.begin - begin, shared.count).columns(column, term.b.cols));
    }
    column += term.b.cols;
  }
}

bool rides(Tensor x, std::span<const LowRank> terms, int64_t strip) {
  bool possible = x.pitch >= x.cols + strip;
  for (const LowRank& term : terms) possible = possible && term.a.dtype == x.dtype && term.b.dtype == x.dtype;
  return possible && !terms.empty();
}

}  // namespace

void CudaBackend::linear_quantised(Tensor x, const Weight& w, const LowRankTerms& low_rank, bool accumulate, Tensor y) {
  const std::span<const LowRank> terms = low_rank.terms;
  const std::vector<LowRankRun> runs = low_rank_runs(terms);
  const bool few = x.rows <= kGemvRows;
  const int64_t strip = low_rank_strip(low_rank.u.cols);
  const bool fused = few ? !terms.empty() && quantised_gemv_takes(x, terms, low_rank.u) : rides(x, terms, strip);
  LinearPaths::Count& path = paths_.forward[{w.in(), w.out()}];
  ++(terms.empty() ? path.plain : fused ? path.fused : path.unfused);
  if (fused && !few) {
    fill_strip(x.columns(x.cols, strip), x, {}, runs, low_rank);
  } else {
    for (const LowRankRun& run : runs)
      low_rank_input(*this, x, run, low_rank.dropped, low_rank.u.columns(run.column, run.a.rows));
  }
  const float beta = accumulate ? 1.0f : 0.0f;
  if (!fused && !terms.empty()) {
    Products product{*this, *matmul_, stream_};
    const AddTerms add = [&](Tensor tile, int64_t column) { add_terms(product, low_rank, column, tile); };
    return quantised_with_terms(x, w, add, accumulate, y);
  }
  if (few) return quantised_gemv(stream_, x, w, low_rank, beta, y);
  const int64_t more = fused ? strip : 0, step = dequantiser_->panel_rows(w, more, x.dtype);
  for (int64_t begin = 0; begin < w.out(); begin += step) {
    const int64_t count = std::min(step, w.out() - begin);
    const Tensor wide = dequantiser_->panel(count, w.in() + more, x.dtype);
    (*dequantiser_)(w, begin, 0, wide.columns(0, w.in()));
    if (fused) fill_b(*this, terms, begin, wide.columns(w.in(), strip));
    do_gemm(Trans::no, Trans::yes, 1, x.columns(0, wide.cols), wide, beta, y.columns(begin, count));
  }
}

void CudaBackend::quantised_with_terms(Tensor x, const Weight& w, const AddTerms& add, bool accumulate, Tensor y) {
  const float beta = accumulate ? 1.0f : 0.0f;
  Products product{*this, *matmul_, stream_};
  if (x.rows <= kGemvRows) {
    return product.rounded_once(y, accumulate, [&](Tensor rows, int64_t begin) {
      require(begin == 0, "a few rows fit the panel");
      quantised_gemv(stream_, x, w, {}, beta, rows);
      add(rows, 0);
    });
  }
  const int64_t step = dequantiser_->panel_rows(w, 0, x.dtype);
  for (int64_t begin = 0; begin < w.out(); begin += step) {
    const int64_t count = std::min(step, w.out() - begin);
    const Tensor wide = dequantiser_->panel(count, w.in(), x.dtype);
    (*dequantiser_)(w, begin, 0, wide);
    product.rounded_once_by_columns(y.columns(begin, count), accumulate, [&](Tensor tile, int64_t column) {
      product(Trans::no, Trans::yes, 1, x, wide.rows_from(column, tile.cols), beta, tile);
      add(tile, begin + column);
    });
  }
}

void CudaBackend::linear_dx_quantised(Tensor dy, const Weight& w, Tensor v, Tensor a, Tensor dx) {
  if (dx.size() == 0) return;
  const int64_t strip = low_rank_strip(v.cols);
  const bool fused = !v.empty() && v.dtype == dy.dtype && a.dtype == dy.dtype && dy.pitch >= dy.cols + strip &&
                     lies_at(v, dy, 0, dy.cols);
  LinearPaths::Count& path = paths_.backward[{w.in(), w.out()}];
  ++(v.empty() ? path.plain : fused ? path.fused : path.unfused);
  Products product{*this, *matmul_, stream_};
  const int64_t more = fused ? strip : 0, step = dequantiser_->panel_columns(w, more, dy.dtype);
  for (int64_t begin = 0; begin < w.in(); begin += step) {
    const int64_t count = std::min(step, w.in() - begin);
    const Tensor wide = dequantiser_->panel(w.out() + more, count, dy.dtype), out = dx.columns(begin, count);
    (*dequantiser_)(w, 0, begin, wide.rows_from(0, w.out()));
    if (fused) {
      copy(a.columns(begin, count), wide.rows_from(w.out(), a.rows));
      zero(wide.rows_from(w.out() + a.rows, strip - a.rows));
    }
    if (fused || v.empty()) {
      do_gemm(Trans::no, Trans::no, 1, dy.columns(0, wide.rows), wide, 0, out);
      continue;
    }
    product.rounded_once_by_columns(out, false, [&](Tensor tile, int64_t column) {
      product(Trans::no, Trans::no, 1, dy, wide.columns(column, tile.cols), 0, tile);
      product(Trans::no, Trans::no, 1, v, a.columns(begin + column, tile.cols), 1, tile);
    });
  }
}

}  // namespace drover::cuda
