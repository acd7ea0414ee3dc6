#include "model/linear_group.h"

#include "kernels/base/philox.h"

namespace drover {

namespace {

uint64_t dropout_key(const Dropout& dropout, int64_t layer, Projection projection) {
  const uint64_t module = static_cast<uint64_t>(layer) * kProjections + static_cast<uint64_t>(projection);
  const PhiloxBlock block = philox(PhiloxKey::of(dropout.seed), dropout.step, module);
  return block.lane[0] | static_cast<uint64_t>(block.lane[1]) << 32;
}

}  // namespace

LinearGroup::LinearGroup(const ModelConfig& config, int64_t layer, std::vector<Projection> projections,
                         const Placement& placement, Communicator& tp, std::unique_ptr<Weight> weight,
                         AdapterSet* adapter)
    : weight_(std::move(weight)), layer_(layer), tp_(&tp) {
  split_ = shape_of(config, projections.front()).split;
  if (split_ == Split::input) column_offset_ = in_features() * placement.tp_rank;
  int64_t column = 0;
  for (Projection projection : projections) {
    const int64_t whole = shape_of(config, projection).out;
    Member m{.projection = projection, .column = column, .rank_column = rank_};
    m.out = split_ == Split::output ? whole / placement.tp_size : whole;
    column += m.out;
    if (adapter != nullptr) adapt(m, *adapter);
    members_.push_back(m);
  }
  require(column == out_features(), "a linear group's weight has the rows of its members");
}

void LinearGroup::adapt(Member& m, AdapterSet& adapter) {
  const FactorSlice* a = adapter.find(layer_, m.projection, Factor::a);
  if (a == nullptr) return;
  const FactorSlice* b = adapter.find(layer_, m.projection, Factor::b);
  const LowRankSpec& spec = *adapter.layout()[static_cast<size_t>(layer_)][static_cast<size_t>(m.projection)];
  m.r = spec.r;
  m.scale = spec.scale;
  Tensor room_for_a = weight_->room_for_a(), room_for_b = weight_->room_for_b();
  if (!room_for_a.empty()) room_for_a = room_for_a.rows_from(rank_, m.r);
  if (!room_for_b.empty()) room_for_b = room_for_b.rows_from(m.column, m.out).columns(rank_, m.r);
  m.a = adapter.copy_of(*a, room_for_a);
  m.b = adapter.copy_of(*b, room_for_b);
  if (a_.empty()) a_ = m.a;
  require(m.a.data == a_.rows_from(rank_, m.r).data, "the A of a group's members lie one under another");
  if (!adapter.gradients.empty()) {
    if (grad_a_.empty()) grad_a_ = view(adapter.gradients, *a);
    m.grad_b = view(adapter.gradients, *b);
  }
  apart_.push_back({m.projection, rank_, m.r, m.scale});
  if (!together_.empty() && together_.back().scale == m.scale) {
    together_.back().r += m.r;
  } else {
    together_.push_back(apart_.back());
  }
  rank_ += m.r;
  a_.rows = rank_;
  if (!grad_a_.empty()) grad_a_.rows = rank_;
}

DropoutMask LinearGroup::mask_for(const Context& ctx, Projection projection) const {
  return {dropout_key(ctx.dropout, layer_, projection), ctx.dropout.p, ctx.documents, ctx.positions, column_offset_};
}

Tensor LinearGroup::dropped(Context& ctx, Frame& frame, Tensor x, Projection projection) const {
  if (ctx.dropout.p == 0) return x;
  Tensor y = frame.tensor(x.rows, x.cols, x.dtype);
  ctx.backend.dropout(x, mask_for(ctx, projection), y);
  return y;
}

std::vector<LowRank> LinearGroup::low_rank_terms(const Context& ctx) const {
  std::vector<LowRank> terms;
  for (const Member& m : members_) {
    if (m.r == 0) continue;
    terms.push_back({.a = m.a, .b = m.b, .scale = m.scale, .column = m.column});
    if (ctx.dropout.p > 0) terms.back().mask = mask_for(ctx, m.projection);
  }
  return terms;
}

void LinearGroup::multiply(Context& ctx, Tensor x, Tensor u, bool accumulate, Tensor y) const {
  Frame frame(ctx.scratch);
  const std::vector<LowRank> terms = low_rank_terms(ctx);
  const bool drops = adapted() && ctx.dropout.p > 0;
  const Tensor dropped = drops ? frame.tensor(x.rows, x.cols, x.dtype) : Tensor{};
  ctx.backend.linear(x, *weight_, {terms, u, dropped}, accumulate, y, ctx.order);
}

void LinearGroup::forward(Context& ctx, Tensor x, Tensor u, Tensor y) const { multiply(ctx, x, u, false, y); }

PendingSum LinearGroup::add_to(Context& ctx, Tensor x, Tensor u, Tensor residual) const {
  PendingSum sum(ctx);
  if (tp_->size() == 1) {  // nobody to sum with: the same single rounding without the fp32 tensor
    multiply(ctx, x, u, true, residual);
    return sum;
  }
  const Tensor partial = sum.frame().tensor(x.rows, out_features(), ctx.partial_dtype());
  forward(ctx, x, u, partial);
  if (ctx.overlapped) {
    sum.start_adding(*tp_, partial, residual);
  } else {
    tp_->all_reduce(partial);
    ctx.backend.add(partial, residual);
  }
  return sum;
}

std::vector<LowRankGradient> LinearGroup::gradient_terms(Tensor u) const {
  std::vector<LowRankGradient> terms;
  for (const Member& m : members_) {
    if (m.r > 0) terms.push_back({u.columns(m.rank_column, m.r), m.b, m.grad_b, m.scale, m.column});
  }
  return terms;
}

PendingSum LinearGroup::backward(Context& ctx, Tensor dy, Tensor u, Tensor x, Tensor dx) const {
  PendingSum sum(ctx);
  const Tensor v = gradients_of_b_and_x(ctx, sum.frame(), dy, u, dx);
  if (split_ == Split::output && !dx.empty()) sum.start(*tp_, dx);
  gradient_of_a(ctx, v, x);
  return sum;
}

Tensor LinearGroup::gradients_of_b_and_x(Context& ctx, Frame& frame, Tensor dy, Tensor u, Tensor dx) const {
  Tensor v;
  if (adapted()) {
    Tensor whole = weight_->room_for_v(dy);
    if (whole.empty()) whole = frame.tensor(dy.rows, rank_, ctx.dtype);
    ctx.backend.low_rank_backward(dy, gradient_terms(u), whole);
    v = whole.columns(0, rank_);
  }
  if (!dx.empty()) input_gradient(ctx, dy, v, dx);
  return v;
}

void LinearGroup::gradient_of_a(Context& ctx, Tensor v, Tensor x) const {
  for (const Run& run : adapted() ? runs(ctx) : std::span<const Run>{}) {
    Frame frame(ctx.scratch);
    const Tensor part_of_v = v.columns(run.rank_column, run.r), in = dropped(ctx, frame, x, run.projection);
    ctx.backend.gemm(Trans::yes, Trans::no, 1, part_of_v, in, 1, grad_a_.rows_from(run.rank_column, run.r));
  }
}

void LinearGroup::input_gradient(Context& ctx, Tensor dy, Tensor v, Tensor dx) const {
  Backend& b = ctx.backend;
  if (ctx.dropout.p == 0) return b.linear_dx(dy, *weight_, v, a_, dx);
  b.linear_dx(dy, *weight_, {}, {}, dx);
  for (const Run& run : runs(ctx)) {
    Frame inner(ctx.scratch);
    Tensor d = inner.tensor(dx.rows, dx.cols, DType::f32);
    b.gemm(Trans::no, Trans::no, 1, v.columns(run.rank_column, run.r), a_.rows_from(run.rank_column, run.r), 0, d);
    b.dropout_add(d, mask_for(ctx, run.projection), dx);
  }
}

}  // namespace drover
