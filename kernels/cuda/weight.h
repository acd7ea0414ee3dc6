// How frozen weights lie in a GPU's memory, known without one, so that plans have it too. An adapted weight has a strip
// to its right for B and one below it for A, as wide as the rank rounded up to the depth of cuBLASLt's tiles, which it
// would take anyway, so that the rows of what is widened still begin on 128-byte boundaries. Where x and dy have such a
// strip, for u and v, the low-rank term rides in the linear's product (augmented.cpp): [x | u]·[W | B]ᵀ and
// [dy | v]·[W ; A]. What the rank leaves of a strip is zero.
#pragma once
#include "kernels/backend.h"
#include "kernels/quantised_weight.h"

namespace drover::cuda {

constexpr int64_t low_rank_strip(int64_t rank) {
  constexpr int64_t kMultiple = 64;
  return (rank + kMultiple - 1) / kMultiple * kMultiple;
}

class StripWeight : public DenseWeight {
 public:
  StripWeight(Tensor whole, const WeightShape& shape)  // whole (out + strip, in), pitch in + strip
      : DenseWeight(whole.rows_from(0, shape.out), shape.adapter_rank), strip_(low_rank_strip(shape.adapter_rank)) {}
  int64_t x_pitch() const override { return in() + strip_; }
  int64_t dy_pitch() const override { return out() + strip_; }
  Tensor room_for_a() const override { return strip_ == 0 ? Tensor{} : below().rows_from(0, adapter_rank()); }
  Tensor room_for_b() const override { return strip_ == 0 ? Tensor{} : strip_columns().columns(0, adapter_rank()); }
  Tensor room_for_v(Tensor dy) const override {
    return strip_ == 0 || dy.pitch < dy.cols + strip_ ? Tensor{} : dy.columns(dy.cols, strip_);
  }
  Tensor below() const { return values.rows_from(out(), strip_); }       // (strip, in)
  Tensor strip_columns() const { return values.columns(in(), strip_); }  // (out, strip)

 private:
  int64_t strip_;
};

// Codes have no room next to them: an adapter's copies are copied into the panel that the weight is widened into
// (linear_quantised.cpp), so that here, too, its term rides in the product.
template <typename Quantised>
class WithStrips final : public Quantised {
 public:
  using Quantised::Quantised;
  int64_t x_pitch() const override { return this->in() + strip(); }
  int64_t dy_pitch() const override { return this->out() + strip(); }
  Tensor room_for_v(Tensor dy) const override {
    return strip() == 0 || dy.pitch < dy.cols + strip() ? Tensor{} : dy.columns(dy.cols, strip());
  }

 private:
  int64_t strip() const { return low_rank_strip(this->adapter_rank()); }
};

inline std::unique_ptr<Weight> lay_out_strips(Arena& arena, const WeightShape& shape) {
  if (shape.format == Format::fp8) return std::make_unique<WithStrips<Fp8Weight>>(arena, shape);
  if (shape.format == Format::nf4) return std::make_unique<WithStrips<Nf4Weight>>(arena, shape);
  const int64_t strip = low_rank_strip(shape.adapter_rank);
  return std::make_unique<StripWeight>(
      arena.tensor(shape.out + strip, shape.in, dtype_of(shape.format), shape.in + strip), shape);
}

inline constexpr BackendTraits kTraits{.lay_out = lay_out_strips, .rounds_partials = true, .own_memory = true};

}  // namespace drover::cuda
