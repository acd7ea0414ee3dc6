// Frozen linears that read the same input (qkv, o, gate-up, down; the head by itself) as one weight, with their
// adapters and their collective.
//   forward   y = x·Wᵀ + Σ_m u_m·B_mᵀ,  u_m = s_m·drop_m(x)·A_mᵀ
//             (split by input: y is summed over tp, see BackendTraits::rounds_partials)
//   backward  v_m = s_m·dy_m·B_m,  dA_m += v_mᵀ·drop_m(x),  dB_m += dy_mᵀ·u_m,  dx = dy·W + Σ_m drop_m(v_m·A_m)
//             (split by output: dx is summed over tp)
// The weight is frozen: it has no gradient, and its input is needed only where an adapter trains.
// Adapters have slots. The own slot's trains, or is the only one; rows choose theirs by Context::adapters, and a run of
// rows with one adapter reads the weight once.
#pragma once
#include <memory>
#include <vector>

#include "model/adapter.h"
#include "model/pending_sum.h"

namespace drover {

class LinearGroup {
 public:
  // weight (out,in): the members' rows one under another, this rank's. `adapter`, where given, has the own slot, and
  // its copies lie where the weight has room for them.
  LinearGroup(const ModelConfig& config, int64_t layer, std::vector<Projection> projections, const Placement& placement,
              Communicator& tp, std::shared_ptr<const Weight> weight, AdapterSet* adapter);

  // From now on rows of `slot` have this adapter, whose copies lie with itself and which outlives that.
  void attach(int slot, AdapterSet& adapter);
  void detach(int slot);

  const Weight& weight() const { return *weight_; }
  int64_t in_features() const { return weight_->in(); }
  int64_t out_features() const { return weight_->out(); }
  int64_t rank() const;                            // the largest Σ r of an adapter's members: the columns of u
  bool adapted() const { return own().rank > 0; }  // by the own slot's
  // What x and dy are best allocated with. What lies between their rows is overwritten.
  int64_t x_pitch() const { return weight_->x_pitch(); }
  int64_t dy_pitch() const { return weight_->dy_pitch(); }

  // x (T,in), y (T,out) of this rank, u (T,rank) kept for backward. Split by output or vocabulary.
  void forward(Context& ctx, Tensor x, Tensor u, Tensor y) const;
  // residual (T,out) += the linear, summed over tp: there when it is awaited. Split by input.
  PendingSum add_to(Context& ctx, Tensor x, Tensor u, Tensor residual) const;
  // dx (T,in), dB and dA. Split by output, dx is of Context::partial_dtype() and summed over tp: there when it is
  // awaited; dA is computed meanwhile. x is read only with an adapter. dx empty: not wanted.
  PendingSum backward(Context& ctx, Tensor dy, Tensor u, Tensor x, Tensor dx) const;
  // The same in two steps, and without a sum over tp: dB and dx, which gives v, then dA. For a linear split by input
  // whose x takes dx's place, and for the head.
  Tensor gradients_of_b_and_x(Context& ctx, Frame& frame, Tensor dy, Tensor u, Tensor dx) const;
  void gradient_of_a(Context& ctx, Tensor v, Tensor x) const;  // nothing without an adapter

 private:
  // Members that see the same input: each by itself under dropout, else neighbours of one scale together.
  struct Run {
    Projection projection;
    int64_t rank_column = 0, r = 0;  // columns of u and v, rows of a
    float scale = 0;
  };
  // What an adapter adds to this group.
  struct Term {
    Projection projection;
    int64_t column = 0;              // where the member's outputs begin in y
    int64_t r = 0, rank_column = 0;  // its columns of u and v
    float scale = 0;
    Tensor a, b;    // compute copies: (r,in), (out,r)
    Tensor grad_b;  // f32; empty without training
  };
  struct Attached {
    std::vector<Term> terms;
    int64_t rank = 0;  // Σ r
    std::vector<Run> together, apart;
    Tensor a, grad_a;  // (rank, in): the terms' A one under another, and their gradients; empty without training
  };
  enum class Room : uint8_t { weight, adapter };  // where the copies lie
  Attached attached(AdapterSet& adapter, Room room) const;
  const Attached& own() const { return slots_.front(); }
  const Attached& at(int slot) const;  // one without terms where there is none
  std::span<const Run> runs(const Context& ctx) const { return ctx.dropout.p == 0 ? own().together : own().apart; }
  struct Part {  // rows that follow each other and have this adapter
    const Attached* adapter;
    int64_t rows;
  };
  std::vector<Part> parts(const Context& ctx) const;
  std::vector<LowRank> low_rank_terms(const Context& ctx, const Attached& adapter) const;
  void multiply(Context& ctx, Tensor x, Tensor u, bool accumulate, Tensor y) const;
  void multiply(Context& ctx, const Attached& adapter, Tensor x, Tensor u, bool accumulate, Tensor y) const;
  std::vector<LowRankGradient> gradient_terms(Tensor u) const;
  void input_gradient(Context& ctx, Tensor dy, Tensor v, Tensor dx) const;  // of this rank's outputs
  Tensor dropped(Context& ctx, Frame& frame, Tensor x, Projection projection) const;
  DropoutMask mask_for(const Context& ctx, Projection projection) const;

  std::shared_ptr<const Weight> weight_;
  Split split_ = Split::output;
  int64_t layer_ = 0;
  int64_t column_offset_ = 0;  // global index of x's first column
  Communicator* tp_;
  struct Member {  // this rank's outputs: columns [column, column + out) of y
    Projection projection;
    int64_t out = 0, column = 0;
  };
  std::vector<Member> members_;
  std::vector<Attached> slots_;  // the own slot's first
};

}  // namespace drover
