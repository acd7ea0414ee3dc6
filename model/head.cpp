#include "model/head.h"

#include <algorithm>

namespace drover {

namespace {

// Where the adapter's dropout asks which rows they are.
Context picked_rows(const Context& ctx, const LinearGroup& linear, Frame& frame, Tensor rows) {
  Context picked = ctx;
  if (ctx.dropout.p == 0 || !linear.adapted()) return picked;
  picked.documents = frame.tensor(rows.rows, 1, DType::i32);
  picked.positions = frame.tensor(rows.rows, 1, DType::i32);
  ctx.backend.gather_rows(ctx.documents, rows, picked.documents);
  ctx.backend.gather_rows(ctx.positions, rows, picked.positions);
  return picked;
}

}  // namespace

void Head::loss(Context& ctx, Tensor x, Tensor rows, Tensor labels, Tensor weights, Tensor logprob, Tensor dx) const {
  Backend& b = ctx.backend;
  Frame frame(ctx.scratch);
  const int64_t n = rows.rows, hidden = x.cols;
  const bool backward = !dx.empty();
  Tensor picked = frame.tensor(n, hidden, x.dtype), normed = frame.tensor(n, hidden, x.dtype),
         rstd = frame.tensor(n, 1, DType::f32);
  b.gather_rows(x, rows, picked);
  b.rms_norm(picked, norm.weight, norm.eps, normed, rstd);
  Tensor d_normed = backward ? frame.tensor(n, hidden, DType::f32) : Tensor{};

  const int64_t columns = linear.out_features(), rows_at_once = chunk_rows(columns);
  for (int64_t begin = 0; begin < n; begin += rows_at_once) {
    Frame inner(ctx.scratch);
    const int64_t c = std::min(rows_at_once, n - begin);
    Context of_rows = picked_rows(ctx, linear, inner, rows.rows_from(begin, c));
    Tensor in = normed.rows_from(begin, c), label = labels.rows_from(begin, c),
           logits = inner.tensor(c, columns, DType::f32), u = inner.tensor(c, linear.rank(), ctx.dtype);
    Tensor parts = inner.tensor(c * tp->size(), 3, DType::f32), statistics = parts.rows_from(c * tp->rank(), c),
           lse = inner.tensor(c, 1, DType::f32);
    linear.forward(of_rows, in, u, logits);
    b.start_statistics(statistics);
    b.fold_statistics(logits, label, share.begin, share.valid, statistics);
    tp->all_gather(statistics, parts);
    b.merge_statistics(parts, lse, logprob.rows_from(begin, c));
    if (!backward) continue;

    Tensor d_logits = ctx.dtype == DType::f32 ? logits : inner.tensor(c, columns, ctx.dtype);
    b.cross_entropy_backward(logits, label, share.begin, share.valid, lse, d_logits);
    const Tensor weight = weights.rows_from(begin, c);  // of dx they are taken below, over all chunks
    if (linear.adapted()) b.scale_rows(weight, u);
    const Tensor v = linear.gradients_of_b_and_x(of_rows, inner, d_logits, u, d_normed.rows_from(begin, c));
    if (linear.adapted()) b.scale_rows(weight, v);
    linear.gradient_of_a(of_rows, v, in);
  }
  if (!backward) return;

  tp->all_reduce(d_normed);
  b.scale_rows(weights, d_normed);
  Tensor d_picked = normed;  // its values are used up
  b.zero(d_picked);
  b.rms_norm_backward(d_normed, picked, rstd, norm.weight, d_picked);
  b.zero(dx);
  b.scatter_rows(d_picked, rows, dx);
}

void Head::logits(Context& ctx, Tensor x, Tensor rows, Tensor logits) const {
  Backend& b = ctx.backend;
  Frame frame(ctx.scratch);
  const int64_t n = rows.rows;
  Tensor picked = frame.tensor(n, x.cols, x.dtype), normed = frame.tensor(n, x.cols, x.dtype),
         rstd = frame.tensor(n, 1, DType::f32);
  b.gather_rows(x, rows, picked);
  b.rms_norm(picked, norm.weight, norm.eps, normed, rstd);
  const int64_t columns = linear.out_features();
  Tensor parts = frame.tensor(n * tp->size(), columns, DType::f32), mine = parts.rows_from(n * tp->rank(), n);
  linear.forward(ctx, normed, frame.tensor(n, linear.rank(), ctx.dtype), mine);
  tp->all_gather(mine, parts);
  for (int64_t rank = 0; rank < tp->size(); ++rank) {
    b.copy(parts.rows_from(rank * n, n), logits.columns(rank * columns, columns));
  }
}

}  // namespace drover
