#include "model/linear_group.h"

#include <algorithm>

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
                         const Placement& placement, Communicator& tp, std::shared_ptr<const Weight> weight,
                         AdapterSet* adapter)
    : weight_(std::move(weight)), layer_(layer), tp_(&tp) {
  split_ = shape_of(config, projections.front()).split;
  if (split_ == Split::input) column_offset_ = in_features() * placement.tp_rank;
  int64_t column = 0;
  for (Projection projection : projections) {
    const int64_t whole = shape_of(config, projection).out;
    const int64_t dealt = whole / (split_ == Split::output ? placement.tp_size : 1);
    members_.push_back({projection, split_ == Split::vocabulary ? out_features() : dealt, column});
    column += members_.back().out;
  }
  require(column == out_features(), "a linear group's weight has the rows of its members");
  slots_.push_back(adapter == nullptr ? Attached{} : attached(*adapter, Room::weight));
}

void LinearGroup::attach(int slot, AdapterSet& adapter) {
  require(slot > kOwnSlot, "the own slot's adapter comes with the group");
  if (slots_.size() <= static_cast<size_t>(slot)) slots_.resize(static_cast<size_t>(slot) + 1);
  slots_[static_cast<size_t>(slot)] = attached(adapter, Room::adapter);
}

void LinearGroup::detach(int slot) { slots_[static_cast<size_t>(slot)] = {}; }

int64_t LinearGroup::rank() const { return std::ranges::max_element(slots_, {}, &Attached::rank)->rank; }

const LinearGroup::Attached& LinearGroup::at(int slot) const {
  static const Attached none;
  return slot < 0 || static_cast<size_t>(slot) >= slots_.size() ? none : slots_[static_cast<size_t>(slot)];
}

LinearGroup::Attached LinearGroup::attached(AdapterSet& adapter, Room room) const {
  Attached all;
  for (const Member& member : members_) {
    const FactorSlice* a = adapter.find(layer_, member.projection, Factor::a);
    if (a == nullptr) continue;
    const FactorSlice* b = adapter.find(layer_, member.projection, Factor::b);
    if (b->row_count == 0) continue;  // a share of the vocabulary that is nothing but padding
    const LowRankSpec& spec = *adapter.layout()[static_cast<size_t>(layer_)][static_cast<size_t>(member.projection)];
    Term term{.projection = member.projection,
              .column = member.column,
              .r = spec.r,
              .rank_column = all.rank,
              .scale = spec.scale};
    Tensor room_for_a, room_for_b;
    if (room == Room::weight) room_for_a = weight_->room_for_a(), room_for_b = weight_->room_for_b();
    if (!room_for_a.empty()) room_for_a = room_for_a.rows_from(all.rank, term.r);
    if (!room_for_b.empty()) room_for_b = room_for_b.rows_from(member.column, member.out).columns(all.rank, term.r);
    term.a = adapter.copy_of(*a, room_for_a);
    term.b = adapter.copy_of(*b, room_for_b);
    if (all.a.empty()) all.a = term.a;
    require(term.a.data == all.a.rows_from(all.rank, term.r).data, "the A of a group's members lie one under another");
    if (!adapter.gradients.empty()) {
      if (all.grad_a.empty()) all.grad_a = view(adapter.gradients, *a);
      term.grad_b = view(adapter.gradients, *b);
    }
    all.apart.push_back({term.projection, all.rank, term.r, term.scale});
    if (!all.together.empty() && all.together.back().scale == term.scale) {
      all.together.back().r += term.r;
    } else {
      all.together.push_back(all.apart.back());
    }
    all.rank += term.r;
    all.a.rows = all.rank;
    if (!all.grad_a.empty()) all.grad_a.rows = all.rank;
    all.terms.push_back(term);
  }
  return all;
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

std::vector<LowRank> LinearGroup::low_rank_terms(const Context& ctx, const Attached& adapter) const {
  std::vector<LowRank> terms;
  for (const Term& t : adapter.terms) {
    terms.push_back({.a = t.a, .b = t.b, .scale = t.scale, .column = t.column});
    if (ctx.dropout.p > 0) terms.back().mask = mask_for(ctx, t.projection);
  }
  return terms;
}

// Neighbours that have the same adapter here, or none, are one part.
std::vector<LinearGroup::Part> LinearGroup::parts(const Context& ctx) const {
  std::vector<Part> parts;
  for (const AdapterRows& rows : ctx.adapters) {
    const Attached& adapter = at(rows.slot);
    const bool joins =
        !parts.empty() && (parts.back().adapter == &adapter || (parts.back().adapter->rank == 0 && adapter.rank == 0));
    if (!joins) parts.push_back({&adapter, 0});
    parts.back().rows += rows.count;
  }
  return parts;
}

void LinearGroup::multiply(Context& ctx, Tensor x, Tensor u, bool accumulate, Tensor y) const {
  if (ctx.adapters.empty()) return multiply(ctx, own(), x, u, accumulate, y);
  const std::vector<Part> all = parts(ctx);
  if (all.size() == 1) return multiply(ctx, *all.front().adapter, x, u, accumulate, y);
  require(ctx.order == SumOrder::by_row && ctx.dropout.p == 0, "rows of several adapters are generated");
  std::vector<std::vector<LowRank>> terms;
  for (const Part& part : all) terms.push_back(low_rank_terms(ctx, *part.adapter));
  std::vector<LinearPart> linear;
  int64_t begin = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    linear.push_back({all[i].rows, {terms[i], u.rows_from(begin, all[i].rows).columns(0, all[i].adapter->rank), {}}});
    begin += all[i].rows;
  }
  require(begin == x.rows, "every row of a pass has an adapter, or the base model's word");
  ctx.backend.linear_of_parts(x, *weight_, linear, accumulate, y);
}

// u may have more columns than the adapter takes.
void LinearGroup::multiply(Context& ctx, const Attached& adapter, Tensor x, Tensor u, bool accumulate, Tensor y) const {
  Frame frame(ctx.scratch);
  const std::vector<LowRank> terms = low_rank_terms(ctx, adapter);
  const bool drops = !terms.empty() && ctx.dropout.p > 0;
  const Tensor dropped = drops ? frame.tensor(x.rows, x.cols, x.dtype) : Tensor{};
  ctx.backend.linear(x, *weight_, {terms, u.columns(0, adapter.rank), dropped}, accumulate, y, ctx.order);
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
  for (const Term& t : own().terms) {
    terms.push_back({u.columns(t.rank_column, t.r), t.b, t.grad_b, t.scale, t.column});
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
    if (whole.empty()) whole = frame.tensor(dy.rows, own().rank, ctx.dtype);
    ctx.backend.low_rank_backward(dy, gradient_terms(u), whole);
    v = whole.columns(0, own().rank);
  }
  if (!dx.empty()) input_gradient(ctx, dy, v, dx);
  return v;
}

void LinearGroup::gradient_of_a(Context& ctx, Tensor v, Tensor x) const {
  for (const Run& run : adapted() ? runs(ctx) : std::span<const Run>{}) {
    Frame frame(ctx.scratch);
    const Tensor part_of_v = v.columns(run.rank_column, run.r), in = dropped(ctx, frame, x, run.projection);
    ctx.backend.gemm(Trans::yes, Trans::no, 1, part_of_v, in, 1, own().grad_a.rows_from(run.rank_column, run.r));
  }
}

void LinearGroup::input_gradient(Context& ctx, Tensor dy, Tensor v, Tensor dx) const {
  Backend& b = ctx.backend;
  if (ctx.dropout.p == 0) return b.linear_dx(dy, *weight_, v, own().a, dx);
  b.linear_dx(dy, *weight_, {}, {}, dx);
  for (const Run& run : runs(ctx)) {
    Frame inner(ctx.scratch);
    Tensor d = inner.tensor(dx.rows, dx.cols, DType::f32);
    b.gemm(Trans::no, Trans::no, 1, v.columns(run.rank_column, run.r), own().a.rows_from(run.rank_column, run.r), 0, d);
    b.dropout_add(d, mask_for(ctx, run.projection), dx);
  }
}

}  // namespace drover
