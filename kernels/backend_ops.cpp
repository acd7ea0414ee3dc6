// The ops of backend.h but those of backend.cpp: what must hold of operands, what a call costs, and the kernel that
// does it.
#include <algorithm>

#include "kernels/backend.h"
#include "kernels/op_checks.h"

namespace drover {

namespace {

// Σ of min(n, keys) over n = 1 … queries.
int64_t pairs_up_to(int64_t queries, int64_t keys) {
  const int64_t rising = std::clamp<int64_t>(queries, 0, keys);
  return rising * (rising + 1) / 2 + std::max<int64_t>(queries - keys, 0) * keys;
}

int64_t visible_pairs(std::span<const Segment> segments) {
  int64_t pairs = 0;
  for (const Segment& s : segments) pairs += visible_pairs(s);
  return pairs;
}

int64_t bytes_of_keys(const KvView& kv, std::span<const Segment> segments) {  // and of values; or of their gradients
  int64_t rows = 0;
  for (const Segment& s : segments) rows += s.nk;
  return rows * (kv.k.cols + kv.v.cols) * size_of(kv.k.dtype);
}

void check_attention(Tensor q, const KvView& kv, const AttentionShape& shape, Tensor o, Tensor lse) {
  require(shape.heads > 0 && shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0,
          "query heads come in equal groups, one for a kv head");
  require(is_float(q) && kv.k.dtype == q.dtype && kv.v.dtype == q.dtype && o.dtype == q.dtype,
          "attention's tensors are of one dtype");
  require(q.cols == shape.heads * shape.head_dim && same_shape(q, o) && same_shape(kv.k, kv.v) &&
              kv.k.cols == shape.kv_heads * shape.head_dim && is_vector(lse, q.rows * shape.heads, DType::f32),
          "attention's shapes fit");
}

}  // namespace

int64_t visible_pairs(const Segment& s) { return pairs_up_to(s.nq + s.offset, s.nk) - pairs_up_to(s.offset, s.nk); }

// --- pointwise -----------------------------------------------------------------------------------

void Backend::add(Tensor x, Tensor y) {
  require(same_shape(x, y), "add keeps the shape");
  require((is_float(x) && is_float(y)) || (x.dtype == DType::f64 && y.dtype == DType::f64),
          "add is of floats or of f64");
  issue([&] { return call_on("add", x, x.size(), bytes_of(x, y, y)); }, [&] { do_add(x, y); });
}

void Backend::scale_rows(Tensor weights, Tensor x) {
  require(is_vector(weights, x.rows, DType::f32) && is_float(x), "scale_rows has an fp32 weight for every row");
  issue([&] { return call_on("scale_rows", x, x.size(), bytes_of(weights, x, x)); },
        [&] { do_scale_rows(weights, x); });
}

void Backend::dropout(Tensor x, const DropoutMask& mask, Tensor y) {
  require(alike(x, y) && is_float(x), "dropout keeps the shape");
  issue([&] { return call_on("dropout", x, x.size(), bytes_of(x, y)); }, [&] { do_dropout(x, mask, y); });
}

void Backend::dropout_add(Tensor x, const DropoutMask& mask, Tensor y) {
  require(same_shape(x, y) && is_float(x) && is_float(y), "dropout keeps the shape");
  issue([&] { return call_on("dropout_add", x, x.size(), bytes_of(x, y, y)); }, [&] { do_dropout_add(x, mask, y); });
}

void Backend::rms_norm(Tensor x, Tensor w, float eps, Tensor y, Tensor rstd) {
  require(same_shape(x, y) && w.size() == x.cols && is_vector(rstd, x.rows, DType::f32), "rms_norm's shapes fit");
  issue([&] { return call_on("rms_norm", x, 4 * x.size(), bytes_of(x, w, y, rstd)); },
        [&] { do_rms_norm(x, w, eps, y, rstd); });
}

void Backend::rms_norm_again(Tensor x, Tensor rstd, Tensor w, Tensor y) {
  require(same_shape(x, y) && w.size() == x.cols && is_vector(rstd, x.rows, DType::f32), "rms_norm's shapes fit");
  issue([&] { return call_on("rms_norm_again", x, 2 * x.size(), bytes_of(x, rstd, w, y)); },
        [&] { do_rms_norm_again(x, rstd, w, y); });
}

void Backend::rms_norm_backward(Tensor dy, Tensor x, Tensor rstd, Tensor w, Tensor dx) {
  require(same_shape(dy, x) && same_shape(dy, dx) && w.size() == x.cols && is_vector(rstd, x.rows, DType::f32),
          "rms_norm_backward's shapes fit");
  issue([&] { return call_on("rms_norm_backward", dy, 8 * dy.size(), bytes_of(dy, x, rstd, w, dx, dx)); },
        [&] { do_rms_norm_backward(dy, x, rstd, w, dx); });
}

void Backend::rope(Tensor x, Tensor positions, Tensor cosine, Tensor sine, bool inverse) {
  require(is_vector(positions, x.rows, DType::i32) && cosine.dtype == DType::f32 && alike(cosine, sine) &&
              cosine.cols > 0 && x.cols % (2 * cosine.cols) == 0,
          "rope turns whole heads");
  issue([&] { return call_on("rope", x, 3 * x.size(), bytes_of(x, x, positions)); },
        [&] { do_rope(x, positions, cosine, sine, inverse); });
}

void Backend::swiglu(Tensor gate_up, Tensor y) {
  require(gate_up.dtype == y.dtype && gate_up.rows == y.rows && gate_up.cols == 2 * y.cols,
          "gate_up is twice as wide as y and of its dtype");
  issue([&] { return call_on("swiglu", y, 5 * y.size(), bytes_of(gate_up, y)); }, [&] { do_swiglu(gate_up, y); });
}

void Backend::swiglu_backward(Tensor dy, Tensor gate_up, Tensor d_gate_up, Tensor y) {
  require(
      gate_up.dtype == dy.dtype && gate_up.rows == dy.rows && gate_up.cols == 2 * dy.cols && alike(gate_up, d_gate_up),
      "gate_up and its gradient are twice as wide as dy");
  require(y.empty() || alike(y, dy), "y is as dy");
  const auto describe = [&] {
    return call_on("swiglu_backward", dy, 10 * dy.size() + y.size(), bytes_of(dy, gate_up, d_gate_up, y));
  };
  issue(describe, [&] { do_swiglu_backward(dy, gate_up, d_gate_up, y); });
}

void Backend::embedding(Tensor ids, const Weight& table, int64_t begin, int64_t valid, Tensor y) {
  require(is_vector(ids, y.rows, DType::i32) && table.in() == y.cols && is_float(y) && valid <= table.out(),
          "embedding's shapes fit");
  issue([&] { return call_on("embedding", y, 0, bytes_of(ids, y, y)); },
        [&] { do_embedding(ids, table, begin, valid, y); });
}

// --- attention -----------------------------------------------------------------------------------

void Backend::attention(Tensor q, const KvView& kv, std::span<const Segment> segments, const AttentionShape& shape,
                        Tensor o, Tensor lse) {
  check_attention(q, kv, shape, o, lse);
  const auto describe = [&] {
    OpCall call = call_on("attention", q, 4 * shape.heads * shape.head_dim * visible_pairs(segments),
                          bytes_of(q, o, lse) + bytes_of_keys(kv, segments));
    call.b.cols = kv.k.cols;
    call.generates = !segments.empty() && segments.front().block_table != nullptr;
    return call;
  };
  issue(describe, [&] { do_attention(q, kv, segments, shape, o, lse); });
}

void Backend::attention_backward(Tensor q, const KvView& kv, std::span<const Segment> segments,
                                 const AttentionShape& shape, Tensor o, Tensor lse, Tensor d_o, Tensor dq, Tensor dk,
                                 Tensor dv) {
  check_attention(q, kv, shape, o, lse);
  require(alike(d_o, q) && alike(dq, q) && alike(dk, kv.k) && alike(dv, kv.v),
          "attention's gradients are as what they are gradients of");
  for (const Segment& segment : segments) {
    require(segment.block_table == nullptr, "attention_backward reads contiguous keys");
  }
  const auto describe = [&] {
    OpCall call = call_on("attention_backward", q, 10 * shape.heads * shape.head_dim * visible_pairs(segments),
                          bytes_of(q, o, lse, d_o, dq) + 2 * bytes_of_keys(kv, segments));
    call.b.cols = kv.k.cols;
    return call;
  };
  issue(describe, [&] { do_attention_backward(q, kv, segments, shape, o, lse, d_o, dq, dk, dv); });
}

// --- loss ----------------------------------------------------------------------------------------

void Backend::start_statistics(Tensor statistics) {
  require(statistics.cols == 3 && statistics.dtype == DType::f32, "statistics are three fp32 numbers a row");
  issue([&] { return call_on("start_statistics", statistics, 0, bytes_of(statistics)); },
        [&] { do_start_statistics(statistics); });
}

void Backend::fold_statistics(Tensor logits, Tensor labels, int64_t begin, int64_t valid, Tensor statistics) {
  require(logits.dtype == DType::f32 && is_vector(labels, logits.rows, DType::i32) &&
              is_vector(statistics, 3 * logits.rows, DType::f32) && 0 <= valid && valid <= logits.cols,
          "fold_statistics' shapes fit");
  const auto describe = [&] {
    return call_on("fold_statistics", logits, 3 * logits.size(), bytes_of(logits, labels, statistics, statistics));
  };
  issue(describe, [&] { do_fold_statistics(logits, labels, begin, valid, statistics); });
}

void Backend::merge_statistics(Tensor parts, Tensor lse, Tensor logprob) {
  require(parts.cols == 3 && parts.dtype == DType::f32 && lse.dtype == DType::f32 && lse.size() == logprob.size() &&
              logprob.dtype == DType::f32 && (lse.size() == 0 || parts.rows % lse.size() == 0),
          "merge_statistics' shapes fit");
  issue([&] { return call_on("merge_statistics", parts, 3 * parts.size(), bytes_of(parts, lse, logprob)); },
        [&] { do_merge_statistics(parts, lse, logprob); });
}

void Backend::cross_entropy_backward(Tensor logits, Tensor labels, int64_t begin, int64_t valid, Tensor lse, Tensor d) {
  require(logits.dtype == DType::f32 && is_vector(labels, logits.rows, DType::i32) &&
              is_vector(lse, logits.rows, DType::f32) && same_shape(d, logits) && is_float(d) && 0 <= valid &&
              valid <= logits.cols,
          "cross_entropy_backward's shapes fit");
  const auto describe = [&] {
    return call_on("cross_entropy_backward", logits, 3 * logits.size(), bytes_of(logits, labels, lse, d));
  };
  issue(describe, [&] { do_cross_entropy_backward(logits, labels, begin, valid, lse, d); });
}

// --- generation ----------------------------------------------------------------------------------

void Backend::sample(Tensor logits, Tensor choices, Tensor tokens) {
  require(logits.dtype == DType::f32 && logits.cols > 0 && choices.rows == logits.rows &&
              choices.cols == kSamplingColumns && choices.dtype == DType::f32 &&
              is_vector(tokens, logits.rows, DType::i32),
          "sample's shapes fit");
  issue([&] { return call_on("sample", logits, logits.size(), bytes_of(logits, choices, tokens)); },
        [&] { do_sample(logits, choices, tokens); });
}

void Backend::penalize(Tensor logits, Tensor places, Tensor changes) {
  require(logits.dtype == DType::f32 && places.dtype == DType::i32 && changes.dtype == DType::f32 &&
              places.rows == changes.rows && places.cols == 2 && changes.cols == 3,
          "penalize has a place and three numbers for every change");
  issue([&] { return call_on("penalize", changes, changes.size(), bytes_of(places, changes, changes)); },
        [&] { do_penalize(logits, places, changes); });
}

void Backend::allow(Tensor logits, Tensor rows, Tensor bits) {
  require(logits.dtype == DType::f32 && is_vector(rows, bits.rows, DType::i32) && bits.dtype == DType::i32 &&
              bits.rows <= logits.rows && bits.cols == bit_words(logits.cols),
          "allow has a bit for every column of its rows");
  const auto describe = [&] {
    const Tensor changed = logits.rows_from(0, bits.rows);
    return call_on("allow", changed, 0, bytes_of(rows, bits, changed, changed));
  };
  issue(describe, [&] { do_allow(logits, rows, bits); });
}

void Backend::log_probabilities(Tensor logits, Tensor tokens, Tensor values, Tensor top, Tensor top_values) {
  require(logits.dtype == DType::f32 && is_vector(tokens, logits.rows, DType::i32) &&
              is_vector(values, logits.rows, DType::f32) && same_shape(top, top_values) && top.cols <= logits.cols &&
              (top.empty() || (top.rows == logits.rows && top.dtype == DType::i32 && top_values.dtype == DType::f32)),
          "log_probabilities' shapes fit");
  const auto describe = [&] {
    return call_on("log_probabilities", logits, 2 * logits.size(), bytes_of(logits, tokens, values, top, top_values));
  };
  issue(describe, [&] { do_log_probabilities(logits, tokens, values, top, top_values); });
}

// --- optimizer -----------------------------------------------------------------------------------

void Backend::sum_squares(Tensor x, Tensor sum) {
  require(x.dtype == DType::f32 && is_vector(sum, 1, DType::f64), "sum_squares is of fp32, into one f64");
  issue([&] { return call_on("sum_squares", x, 2 * x.size(), bytes_of(x)); }, [&] { do_sum_squares(x, sum); });
}

void Backend::dot(Tensor x, Tensor y, Tensor sum) {
  require(x.dtype == DType::f32 && is_vector(y, x.size(), DType::f32) && is_vector(sum, 1, DType::f64),
          "dot takes two vectors of one length");
  issue([&] { return call_on("dot", x, 2 * x.size(), bytes_of(x, y)); }, [&] { do_dot(x, y, sum); });
}

void Backend::clip_factor(Tensor sum, float max_norm, Tensor factor) {
  require(is_vector(sum, 1, DType::f64) && is_vector(factor, 1, DType::f32), "clip_factor makes one number of another");
  issue([&] { return call_on("clip_factor", sum, 0, bytes_of(sum, factor, factor)); },
        [&] { do_clip_factor(sum, max_norm, factor); });
}

void Backend::adamw(const AdamW& settings, Tensor factor, Tensor g, Tensor p, Tensor m, Tensor v) {
  require(is_vector(factor, 1, DType::f32), "adamw's factor is one fp32 number");
  for (Tensor t : {g, p, m, v}) require(is_vector(t, p.size(), DType::f32), "adamw takes four vectors of one length");
  issue([&] { return call_on("adamw", p, 12 * p.size(), bytes_of(g, p, p, m, m, v, v)); },
        [&] { do_adamw(settings, factor, g, p, m, v); });
}

}  // namespace drover
