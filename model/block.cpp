#include "model/block.h"

#include <algorithm>

namespace drover {

int64_t Block::dx_pitch() const { return std::max(o.dy_pitch(), down.dy_pitch()); }

Block::Saved Block::saved(Arena& arena, int64_t t, DType dtype) const {
  const int64_t hidden = qkv.in_features();
  return {.x = arena.tensor(t, hidden, dtype),
          .rstd = arena.tensor(t, 1, DType::f32),
          .qkv = arena.tensor(t, qkv.out_features(), dtype),
          .attended = arena.tensor(t, o.in_features(), dtype, o.x_pitch()),
          .lse = arena.tensor(t, attention.heads, DType::f32),
          .h = arena.tensor(t, hidden, dtype),
          .h_rstd = arena.tensor(t, 1, DType::f32),
          .gate_up = arena.tensor(t, gate_up.out_features(), dtype),
          .u_qkv = arena.tensor(t, qkv.rank(), dtype),
          .u_o = arena.tensor(t, o.rank(), dtype),
          .u_gate_up = arena.tensor(t, gate_up.rank(), dtype),
          .u_down = arena.tensor(t, down.rank(), dtype)};
}

Block::Saved Block::Saved::rows_from(int64_t begin, int64_t count) const {
  Saved part = *this;
  for (Tensor* t : {&part.x, &part.rstd, &part.qkv, &part.attended, &part.lse, &part.h, &part.h_rstd, &part.gate_up,
                    &part.u_qkv, &part.u_o, &part.u_gate_up, &part.u_down}) {
    if (!t->empty()) *t = t->rows_from(begin, count);
  }
  return part;
}

namespace {

struct Heads {
  Tensor q, k, v;  // (T,H·E) (T,K·E) (T,K·E): columns of one (T,(H+2K)E) tensor
  Tensor qk;       // q and k together: what RoPE rotates
};

Heads heads_of(Tensor qkv, const AttentionShape& a) {
  const int64_t q = a.heads * a.head_dim, kv = a.kv_heads * a.head_dim;
  return {qkv.columns(0, q), qkv.columns(q, kv), qkv.columns(q + kv, kv), qkv.columns(0, q + kv)};
}

// Where attention reads keys and values: the micro-batch's own, or the cache's, which get them first.
KvView keys_and_values(Context& ctx, const Heads& heads, size_t layer) {
  if (ctx.cache == nullptr) return {heads.k, heads.v};
  const KvCache::Layer& cache = ctx.cache->layers[layer];
  ctx.backend.scatter_rows(heads.k, ctx.cache_rows, cache.k);
  ctx.backend.scatter_rows(heads.v, ctx.cache_rows, cache.v);
  return {cache.k, cache.v, ctx.cache->block_size};
}

}  // namespace

Task Block::forward(Context& ctx, Tensor x, Saved s) const {
  Backend& b = ctx.backend;
  Frame scratch(ctx.scratch);
  Tensor normed = scratch.tensor(x.rows, x.cols, x.dtype, std::max(qkv.x_pitch(), gate_up.x_pitch()));

  b.copy(x, s.x);
  b.rms_norm(x, attention_norm.weight, attention_norm.eps, normed, s.rstd);
  qkv.forward(ctx, normed, s.u_qkv, s.qkv);
  const Heads heads = heads_of(s.qkv, attention);
  b.rope(heads.qk, ctx.positions, ctx.rope.cosine, ctx.rope.sine, false);
  b.attention(heads.q, keys_and_values(ctx, heads, index), ctx.segments, attention, s.attended, s.lse);
  co_await o.add_to(ctx, s.attended, s.u_o, x);  // x += Wo·attended (+ low rank), summed over tp

  b.copy(x, s.h);
  b.rms_norm(x, mlp_norm.weight, mlp_norm.eps, normed, s.h_rstd);
  gate_up.forward(ctx, normed, s.u_gate_up, s.gate_up);
  Tensor activated = scratch.tensor(x.rows, down.in_features(), x.dtype, down.x_pitch());
  b.swiglu(s.gate_up, activated);
  co_await down.add_to(ctx, activated, s.u_down, x);
}

Task Block::backward(Context& ctx, Tensor dx, Saved s, Reach reach) const {
  Backend& b = ctx.backend;
  const int64_t t = dx.rows, hidden = dx.cols;

  {  // y = h + Wdown·(silu(gate)·up)
    Frame scratch(ctx.scratch);
    Tensor d_gate_up = scratch.tensor(t, gate_up.out_features(), ctx.dtype, gate_up.dy_pitch());
    {
      Frame inner(ctx.scratch);  // activated is computed again, each value in its gradient's place
      const Tensor d_activated = inner.tensor(t, down.in_features(), ctx.dtype);
      const Tensor activated = down.adapted() ? d_activated : Tensor{};
      const Tensor wanted = reach == Reach::down ? Tensor{} : d_activated;
      const Tensor v = down.gradients_of_b_and_x(ctx, inner, dx, s.u_down, wanted);
      if (reach == Reach::down) {
        b.swiglu(s.gate_up, activated);
      } else {
        b.swiglu_backward(d_activated, s.gate_up, d_gate_up, activated);
      }
      down.gradient_of_a(ctx, v, activated);
      if (reach == Reach::down) co_return;
    }
    Tensor normed;
    if (gate_up.adapted()) {
      normed = scratch.tensor(t, hidden, ctx.dtype);
      b.rms_norm_again(s.h, s.h_rstd, mlp_norm.weight, normed);
    }
    const Tensor d_normed = reach == Reach::gate_up ? Tensor{} : scratch.tensor(t, hidden, ctx.partial_dtype());
    co_await gate_up.backward(ctx, d_gate_up, s.u_gate_up, normed, d_normed);  // d_normed summed over tp
    if (reach == Reach::gate_up) co_return;
    b.rms_norm_backward(d_normed, s.h, s.h_rstd, mlp_norm.weight, dx);
  }

  {  // h = x + Wo·attention(rope(Wqkv·norm(x)))
    Frame scratch(ctx.scratch);
    Tensor d_qkv = scratch.tensor(t, qkv.out_features(), ctx.dtype, qkv.dy_pitch());
    const Heads heads = heads_of(s.qkv, attention), d_heads = heads_of(d_qkv, attention);
    {
      Frame inner(ctx.scratch);
      const Tensor d_attended = reach == Reach::o ? Tensor{} : inner.tensor(t, o.in_features(), ctx.dtype);
      co_await o.backward(ctx, dx, s.u_o, s.attended, d_attended);
      if (reach == Reach::o) co_return;
      b.attention_backward(heads.q, {heads.k, heads.v}, ctx.segments, attention, s.attended, s.lse, d_attended,
                           d_heads.q, d_heads.k, d_heads.v);
    }
    b.rope(d_heads.qk, ctx.positions, ctx.rope.cosine, ctx.rope.sine, true);
    Tensor normed;
    if (qkv.adapted()) {
      normed = scratch.tensor(t, hidden, ctx.dtype);
      b.rms_norm_again(s.x, s.rstd, attention_norm.weight, normed);
    }
    const Tensor d_normed = reach == Reach::qkv ? Tensor{} : scratch.tensor(t, hidden, ctx.partial_dtype());
    co_await qkv.backward(ctx, d_qkv, s.u_qkv, normed, d_normed);
    if (reach == Reach::qkv) co_return;
    b.rms_norm_backward(d_normed, s.x, s.rstd, attention_norm.weight, dx);
  }
}

Reach lowest_adapted_group(const Block& block) {
  if (block.qkv.adapted()) return Reach::qkv;
  if (block.o.adapted()) return Reach::o;
  if (block.gate_up.adapted()) return Reach::gate_up;
  return block.down.adapted() ? Reach::down : Reach::input;
}

}  // namespace drover
