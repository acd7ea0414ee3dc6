// The CPU's products: training's (gemm.h), those in fp8 (fp8_product.h), and for generation those whose rows do not
// depend on each other (row_product.h).
#include <omp.h>

#include "kernels/cpu/cpu_backend.h"

namespace drover::cpu {

// oneDNN takes its number of threads from OpenMP's setting of the calling thread, which another backend may have set
// since.
void CpuBackend::do_gemm(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
  omp_set_num_threads(threads_);
  gemm_.gemm(ta, tb, alpha, a, b, beta, c);
}

std::unique_ptr<Weight> CpuBackend::make_weight(Arena& arena, const WeightShape& shape) {
  if (shape.products == Products::fp8) fp8_product_.expect();
  if (!is_dense(shape.format)) gemm_.expect_codes();
  return Backend::make_weight(arena, shape);
}

void CpuBackend::do_linear(Tensor x, const Weight& w, const LowRankTerms& low_rank, bool accumulate, Tensor y,
                           SumOrder order) {
  if (order == SumOrder::by_row) {
    const LinearPart all{x.rows, low_rank};
    return do_linear_of_parts(x, w, {&all, 1}, accumulate, y);
  }
  omp_set_num_threads(threads_);
  for (const LowRankRun& run : low_rank_runs(low_rank.terms)) {
    low_rank_input(*this, x, run, low_rank.dropped, low_rank.u.columns(run.column, run.a.rows));
  }
  std::vector<LowRankProduct> products;
  int64_t column = 0;
  for (const LowRank& term : low_rank.terms) {
    products.push_back({low_rank.u.columns(column, term.a.rows), term.b, term.column});
    column += term.a.rows;
  }
  if (w.products() == Products::fp8)
    return fp8_product_.linear(x, static_cast<const Fp8Weight&>(w), products, accumulate, y);
  gemm_.linear(x, WeightView(w), products, accumulate, y);
}

void CpuBackend::do_linear_of_parts(Tensor x, const Weight& w, std::span<const LinearPart> parts, bool accumulate,
                                    Tensor y) {
  omp_set_num_threads(threads_);
  std::vector<LowRankInput> inputs;
  std::vector<LowRankProduct> products;
  int64_t row = 0;
  for (const LinearPart& part : parts) {
    const LowRankTerms& low_rank = part.low_rank;
    for (const LowRankRun& run : low_rank_runs(low_rank.terms)) {
      inputs.push_back({low_rank.u.columns(run.column, run.a.rows), run.a, run.scale, row});
    }
    int64_t column = 0;
    for (const LowRank& term : low_rank.terms) {
      products.push_back({low_rank.u.columns(column, term.a.rows), term.b, term.column, row});
      column += term.a.rows;
    }
    row += part.rows;
  }
  row_product_.linear({x, WeightView(w), inputs, products, accumulate, y});
}

void CpuBackend::do_linear_dx(Tensor dy, const Weight& w, Tensor v, Tensor a, Tensor dx) {
  omp_set_num_threads(threads_);
  if (w.products() == Products::fp8) return fp8_product_.linear_dx(dy, static_cast<const Fp8Weight&>(w), v, a, dx);
  gemm_.linear_dx(dy, WeightView(w), v, a, dx);
}

}  // namespace drover::cpu
