#include "kernels/timed/timed.h"

#include <chrono>

namespace drover {

template <typename Work>
void TimedBackend::time(const char* op, int64_t flops, Work&& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  OpTime& t = times_[op];
  t.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  t.calls += 1;
  t.flops += flops;
}

void TimedBackend::copy(Tensor from, Tensor to) {
  time("copy", 0, [&] { inner_.copy(from, to); });
}
void TimedBackend::copy_all(std::span<const CopyPair> pairs) {
  time("copy_all", 0, [&] { inner_.copy_all(pairs); });
}
void TimedBackend::zero(Tensor x) {
  time("zero", 0, [&] { inner_.zero(x); });
}
void TimedBackend::upload(const void* host, Tensor to) {
  time("upload", 0, [&] { inner_.upload(host, to); });
}
void TimedBackend::download(Tensor from, void* host) {
  time("download", 0, [&] { inner_.download(from, host); });
}
std::unique_ptr<Reading> TimedBackend::read_later(Tensor from) {
  std::unique_ptr<Reading> reading;
  time("read_later", 0, [&] { reading = inner_.read_later(from); });
  return reading;
}
void TimedBackend::gather_rows(Tensor x, Tensor index, Tensor y) {
  time("gather_rows", 0, [&] { inner_.gather_rows(x, index, y); });
}
void TimedBackend::scatter_rows(Tensor x, Tensor index, Tensor y) {
  time("scatter_rows", 0, [&] { inner_.scatter_rows(x, index, y); });
}
void TimedBackend::gemm(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) {
  const int64_t k = ta == Trans::no ? a.cols : a.rows;
  time("gemm", 2 * c.rows * c.cols * k, [&] { inner_.gemm(ta, tb, alpha, a, b, beta, c); });
}
void TimedBackend::linear(Tensor x, const Weight& w, const LowRankTerms& low_rank, bool accumulate, Tensor y) {
  int64_t flops = 2 * x.rows * w.out() * w.in();
  for (const LowRank& term : low_rank.terms) flops += 2 * x.rows * (term.a.size() + term.b.size());
  time("linear", flops, [&] { inner_.linear(x, w, low_rank, accumulate, y); });
}
void TimedBackend::linear_dx(Tensor dy, const Weight& w, Tensor v, Tensor a, Tensor dx) {
  time("linear_dx", 2 * dy.rows * w.out() * w.in() + 2 * v.rows * v.cols * a.cols,
       [&] { inner_.linear_dx(dy, w, v, a, dx); });
}
void TimedBackend::low_rank_backward(Tensor dy, std::span<const LowRankGradient> terms, Tensor v) {
  int64_t flops = 0;
  for (const LowRankGradient& term : terms) flops += 4 * dy.rows * term.b.rows * term.b.cols;
  time("low_rank_backward", flops, [&] { inner_.low_rank_backward(dy, terms, v); });
}
void TimedBackend::add(Tensor x, Tensor y) {
  time("add", 0, [&] { inner_.add(x, y); });
}
void TimedBackend::scale_rows(Tensor weights, Tensor x) {
  time("scale_rows", 0, [&] { inner_.scale_rows(weights, x); });
}
void TimedBackend::dropout(Tensor x, const DropoutMask& mask, Tensor y) {
  time("dropout", 0, [&] { inner_.dropout(x, mask, y); });
}
void TimedBackend::dropout_add(Tensor x, const DropoutMask& mask, Tensor y) {
  time("dropout_add", 0, [&] { inner_.dropout_add(x, mask, y); });
}
void TimedBackend::rms_norm(Tensor x, Tensor w, float eps, Tensor y, Tensor rstd) {
  time("rms_norm", 0, [&] { inner_.rms_norm(x, w, eps, y, rstd); });
}
void TimedBackend::rms_norm_again(Tensor x, Tensor rstd, Tensor w, Tensor y) {
  time("rms_norm_again", 0, [&] { inner_.rms_norm_again(x, rstd, w, y); });
}
void TimedBackend::rms_norm_backward(Tensor dy, Tensor x, Tensor rstd, Tensor w, Tensor dx) {
  time("rms_norm_backward", 0, [&] { inner_.rms_norm_backward(dy, x, rstd, w, dx); });
}
void TimedBackend::rope(Tensor x, Tensor positions, Tensor cosine, Tensor sine, bool inverse) {
  time("rope", 0, [&] { inner_.rope(x, positions, cosine, sine, inverse); });
}
void TimedBackend::swiglu(Tensor gate_up, Tensor y) {
  time("swiglu", 0, [&] { inner_.swiglu(gate_up, y); });
}
void TimedBackend::swiglu_backward(Tensor dy, Tensor gate_up, Tensor d_gate_up, Tensor y) {
  time("swiglu_backward", 0, [&] { inner_.swiglu_backward(dy, gate_up, d_gate_up, y); });
}
void TimedBackend::embedding(Tensor ids, const Weight& table, int64_t begin, int64_t valid, Tensor y) {
  time("embedding", 0, [&] { inner_.embedding(ids, table, begin, valid, y); });
}
void TimedBackend::attention(Tensor q, const KvView& kv, std::span<const Segment> segments, const AttentionShape& shape, Tensor o, Tensor lse) {
  time("attention", 0, [&] { inner_.attention(q, kv, segments, shape, o, lse); });
}
void TimedBackend::attention_backward(Tensor q, const KvView& kv, std::span<const Segment> segments, const AttentionShape& shape, Tensor o, Tensor lse,
                                      Tensor d_o, Tensor dq, Tensor dk, Tensor dv) {
  time("attention_backward", 0, [&] { inner_.attention_backward(q, kv, segments, shape, o, lse, d_o, dq, dk, dv); });
}
void TimedBackend::start_statistics(Tensor statistics) {
  time("start_statistics", 0, [&] { inner_.start_statistics(statistics); });
}
void TimedBackend::fold_statistics(Tensor logits, Tensor labels, int64_t begin, int64_t valid, Tensor statistics) {
  time("fold_statistics", 0, [&] { inner_.fold_statistics(logits, labels, begin, valid, statistics); });
}
void TimedBackend::merge_statistics(Tensor parts, Tensor lse, Tensor logprob) {
  time("merge_statistics", 0, [&] { inner_.merge_statistics(parts, lse, logprob); });
}
void TimedBackend::cross_entropy_backward(Tensor logits, Tensor labels, int64_t begin, int64_t valid, Tensor lse, Tensor d) {
  time("cross_entropy_backward", 0, [&] { inner_.cross_entropy_backward(logits, labels, begin, valid, lse, d); });
}
void TimedBackend::sample(Tensor logits, Tensor choices, Tensor tokens) {
  time("sample", 0, [&] { inner_.sample(logits, choices, tokens); });
}
void TimedBackend::penalize(Tensor logits, Tensor places, Tensor changes) {
  time("penalize", 0, [&] { inner_.penalize(logits, places, changes); });
}
void TimedBackend::log_probabilities(Tensor logits, Tensor tokens, Tensor values, Tensor top, Tensor top_values) {
  time("log_probabilities", 0, [&] { inner_.log_probabilities(logits, tokens, values, top, top_values); });
}
void TimedBackend::sum_squares(Tensor x, Tensor sum) {
  time("sum_squares", 0, [&] { inner_.sum_squares(x, sum); });
}
void TimedBackend::dot(Tensor x, Tensor y, Tensor sum) {
  time("dot", 0, [&] { inner_.dot(x, y, sum); });
}
void TimedBackend::clip_factor(Tensor sum, float max_norm, Tensor factor) {
  time("clip_factor", 0, [&] { inner_.clip_factor(sum, max_norm, factor); });
}
void TimedBackend::adamw(const AdamW& settings, Tensor factor, Tensor g, Tensor p, Tensor m, Tensor v) {
  time("adamw", 0, [&] { inner_.adamw(settings, factor, g, p, m, v); });
}

}  // namespace drover
