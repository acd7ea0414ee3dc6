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

LinearGroup::LinearGroup(const ModelConfig& config, int64_t layer, std::vector<Projection> projections, const Placement& placement,
                         Communicator& tp, Tensor weight, const AdapterSet* adapter)
    : weight_(weight), layer_(layer), tp_(&tp) {
  split_ = shape_of(config, projections.front()).split;
  if (split_ == Split::input) column_offset_ = weight.cols * placement.tp_rank;
  int64_t column = 0;
  for (Projection projection : projections) {
    Member m{.projection = projection, .column = column, .rank_column = rank_};
    m.out = split_ == Split::output ? shape_of(config, projection).out / placement.tp_size : shape_of(config, projection).out;
    column += m.out;
    const FactorSlice* a = adapter == nullptr ? nullptr : adapter->find(layer, projection, false);
    if (a != nullptr) {
      const FactorSlice* b = adapter->find(layer, projection, true);
      const LowRankSpec& spec = *adapter->layout()[static_cast<size_t>(layer)][static_cast<size_t>(projection)];
      m.r = spec.r;
      m.scale = spec.scale;
      m.a = adapter->view(adapter->copies, *a);
      m.b = adapter->view(adapter->copies, *b);
      if (!adapter->gradients.empty()) {
        m.grad_a = adapter->view(adapter->gradients, *a);
        m.grad_b = adapter->view(adapter->gradients, *b);
      }
      if (a_.empty()) a_ = m.a;
      rank_ += m.r;
      a_.rows = rank_;  // the members' A lie one under another in the flat buffer
    }
    members_.push_back(m);
  }
  require(column == weight.rows, "a linear group's weight has the rows of its members");
}

DropoutMask LinearGroup::mask_for(const Step& step, const Member& member) const {
  return {dropout_key(step.dropout, layer_, member.projection), step.dropout.p, step.documents, step.positions, column_offset_};
}

Tensor LinearGroup::dropped(Step& step, Frame& frame, Tensor x, const Member& member) const {
  if (step.dropout.p == 0) return x;
  Tensor y = frame.tensor(x.rows, x.cols, x.dtype);
  step.backend.dropout(x, mask_for(step, member), y);
  return y;
}

void LinearGroup::low_rank_inputs(Step& step, Tensor x, Tensor u, std::vector<LowRank>& terms) const {
  for (const Member& m : members_) {
    if (m.r == 0) continue;
    Frame frame(step.scratch);
    Tensor u_m = u.columns(m.rank_column, m.r);
    step.backend.gemm(Trans::no, Trans::yes, m.scale, dropped(step, frame, x, m), m.a, 0, u_m);
    terms.push_back({u_m, m.b, m.column});
  }
}

void LinearGroup::forward(Step& step, Tensor x, Tensor u, Tensor y) const {
  std::vector<LowRank> terms;
  low_rank_inputs(step, x, u, terms);
  step.backend.linear(x, weight_, terms, false, y);
}

void LinearGroup::forward_add(Step& step, Tensor x, Tensor u, Tensor residual) const {
  Frame frame(step.scratch);
  Tensor partial = frame.tensor(x.rows, out_features(), DType::f32);
  forward(step, x, u, partial);
  tp_->all_reduce(partial);
  step.backend.add(partial, residual);
}

void LinearGroup::backward(Step& step, Tensor dy, Tensor x, Tensor u, Tensor dx) const {
  Backend& b = step.backend;
  Frame frame(step.scratch);
  Tensor v = adapted() ? frame.tensor(dy.rows, rank_, step.dtype) : Tensor{};
  for (const Member& m : members_) {
    if (m.r == 0) continue;
    Tensor dy_m = dy.columns(m.column, m.out), v_m = v.columns(m.rank_column, m.r), u_m = u.columns(m.rank_column, m.r);
    b.gemm(Trans::no, Trans::no, m.scale, dy_m, m.b, 0, v_m);
    b.gemm(Trans::yes, Trans::no, 1, dy_m, u_m, 1, m.grad_b);
    Frame inner(step.scratch);
    b.gemm(Trans::yes, Trans::no, 1, v_m, dropped(step, inner, x, m), 1, m.grad_a);
  }
  if (dx.empty()) return;

  if (step.dropout.p == 0) {
    b.linear_dx(dy, weight_, v, a_, dx);
  } else {
    b.linear_dx(dy, weight_, {}, {}, dx);
    for (const Member& m : members_) {
      if (m.r == 0) continue;
      Frame inner(step.scratch);
      Tensor d = inner.tensor(dx.rows, dx.cols, DType::f32);
      b.gemm(Trans::no, Trans::no, 1, v.columns(m.rank_column, m.r), m.a, 0, d);
      b.dropout_add(d, mask_for(step, m), dx);
    }
  }
  if (split_ == Split::output) tp_->all_reduce(dx);
}

}  // namespace drover
