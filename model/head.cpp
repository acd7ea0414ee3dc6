#include "model/head.h"

#include <algorithm>

namespace drover {

namespace {

struct Chunk {
  int64_t begin, count;
};

std::vector<Chunk> cut(int64_t size, int64_t limit) {
  std::vector<Chunk> chunks;
  for (int64_t begin = 0; begin < size; begin += limit) chunks.push_back({begin, std::min(limit, size - begin)});
  return chunks;
}

}  // namespace

void Head::loss(Step& step, Tensor x, Tensor rows, Tensor labels, Tensor weights, Tensor logprob, Tensor dx) const {
  Backend& b = step.backend;
  Frame frame(step.scratch);
  const int64_t n = rows.rows, hidden = x.cols;
  const bool backward = !dx.empty();
  const std::vector<Chunk> blocks = cut(weight.rows, kBlockColumns);

  Tensor picked = frame.tensor(n, hidden, x.dtype), normed = frame.tensor(n, hidden, x.dtype), rstd = frame.tensor(n, 1, DType::f32);
  b.gather_rows(x, rows, picked);
  b.rms_norm(picked, norm.weight, norm.eps, normed, rstd);
  Tensor d_normed = backward ? frame.tensor(n, hidden, DType::f32) : Tensor{};

  for (const Chunk& chunk : cut(n, kChunkRows)) {
    Frame inner(step.scratch);
    const int64_t c = chunk.count;
    Tensor in = normed.rows_from(chunk.begin, c), label = labels.rows_from(chunk.begin, c);
    Tensor parts = inner.tensor(c * tp->size(), 3, DType::f32), statistics = parts.rows_from(c * tp->rank(), c), lse = inner.tensor(c, 1, DType::f32);
    Tensor logits = inner.tensor(c, blocks.front().count, DType::f32);
    const auto valid_in = [&](const Chunk& block) { return std::clamp<int64_t>(share.valid - block.begin, 0, block.count); };

    b.start_statistics(statistics);
    for (const Chunk& block : blocks) {
      Tensor l = logits.columns(0, block.count);
      b.linear(in, weight.rows_from(block.begin, block.count), {}, false, l);
      b.fold_statistics(l, label, share.begin + block.begin, valid_in(block), statistics);
    }
    tp->all_gather(statistics, parts);
    b.merge_statistics(parts, lse, logprob.rows_from(chunk.begin, c));
    if (!backward) continue;

    Tensor out = d_normed.rows_from(chunk.begin, c);
    Tensor d_logits = step.dtype == DType::f32 ? logits : inner.tensor(c, blocks.front().count, step.dtype);
    for (const Chunk& block : blocks) {
      Tensor l = logits.columns(0, block.count), d = d_logits.columns(0, block.count), w = weight.rows_from(block.begin, block.count);
      if (blocks.size() > 1) b.linear(in, w, {}, false, l);  // a single block's logits are still there
      b.cross_entropy_backward(l, label, share.begin + block.begin, valid_in(block), lse, d);
      b.gemm(Trans::no, Trans::no, 1, d, w, block.begin == 0 ? 0.0f : 1.0f, out);
    }
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

void Head::logits(Step& step, Tensor x, Tensor rows, Tensor logits) const {
  Backend& b = step.backend;
  Frame frame(step.scratch);
  const int64_t n = rows.rows;
  Tensor picked = frame.tensor(n, x.cols, x.dtype), normed = frame.tensor(n, x.cols, x.dtype), rstd = frame.tensor(n, 1, DType::f32);
  b.gather_rows(x, rows, picked);
  b.rms_norm(picked, norm.weight, norm.eps, normed, rstd);
  Tensor parts = frame.tensor(n * tp->size(), weight.rows, DType::f32), mine = parts.rows_from(n * tp->rank(), n);
  b.linear(normed, weight, {}, false, mine);
  tp->all_gather(mine, parts);
  for (int64_t rank = 0; rank < tp->size(); ++rank) {
    b.copy(parts.rows_from(rank * n, n), logits.columns(rank * weight.rows, weight.rows));
  }
}

}  // namespace drover
