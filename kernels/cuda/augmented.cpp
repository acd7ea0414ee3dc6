// Recognises low-rank terms that lie to the right of or below their base operands (weight.h), by addresses alone.
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/weight.h"

namespace drover::cuda {

bool lies_at(Tensor part, Tensor whole, int64_t row, int64_t column) {
  return part.dtype == whole.dtype && part.pitch == whole.pitch &&
         part.data == static_cast<char*>(whole.data) + (row * whole.pitch + column) * size_of(whole.dtype);
}

Augmented augmented_forward(Tensor x, Tensor w, std::span<const LowRank> low_rank) {
  if (low_rank.empty()) return {true, x, w};
  if (x.dtype != w.dtype || x.cols != w.cols) return {};
  int64_t rank = 0;
  for (const LowRank& term : low_rank) {
    if (term.a.cols != w.cols || term.a.rows != term.b.cols || term.column < 0) return {};
    if (term.column + term.b.rows > w.rows) return {};
    if (!lies_at(term.a, w, w.rows + rank, 0) || !lies_at(term.b, w, term.column, x.cols + rank)) return {};
    rank += term.a.rows;
  }
  const int64_t wide = x.cols + low_rank_strip(rank);
  if (x.pitch < wide || w.pitch < wide) return {};
  return {true, x.columns(0, wide), w.columns(0, wide)};
}

Augmented augmented_backward(Tensor dy, Tensor w, Tensor v, Tensor a) {
  if (v.empty()) return {true, dy, w};
  const int64_t tall = dy.cols + low_rank_strip(v.cols);
  if (dy.dtype != w.dtype || dy.cols != w.rows || v.rows != dy.rows || v.cols != a.rows || a.cols != w.cols ||
      dy.pitch < tall)
    return {};
  if (!lies_at(v, dy, 0, dy.cols) || !lies_at(a, w, w.rows, 0)) return {};
  return {true, dy.columns(0, tall), w.rows_from(0, tall)};
}

}  // namespace drover::cuda
