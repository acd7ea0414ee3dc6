// Low-rank adapters (LoRA, Hu et al. 2021): y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ, A (r,in), B (out,r), s = alpha/r or alpha/√r.
// A rank's factors are slices of flat fp32 buffers, which somebody else owns and updates: an AdapterSet names them, and
// keeps the copies that compute. A split-output linear, and the head, keeps A whole and deals B's rows; a split-input
// one deals A's columns and keeps B whole. The gradient of a whole factor is a partial sum on every tensor-parallel
// rank: it is reduced over tp once a step. Split factors are complete.
#pragma once
#include <array>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/base/philox.h"
#include "kernels/slice.h"
#include "model/files/factor.h"
#include "model/weight_table.h"

namespace drover {

struct LowRankSpec {
  int64_t r = 0;
  float scale = 1;
};
// By layer, by projection, as linears_of has them.
using AdapterLayout = std::vector<std::array<std::optional<LowRankSpec>, kProjections + 1>>;

AdapterLayout empty_layout(const ModelConfig& config);  // nothing is adapted
// Asks `match` for every linear by its module path; bad_data when nothing matches.
AdapterLayout adapter_layout(const ModelConfig& config,
                             const std::function<std::optional<LowRankSpec>(const std::string& path)>& match);
int64_t trainable_parameters(const ModelConfig& config, const AdapterLayout& layout);
int64_t lowest_adapted_layer(const AdapterLayout& layout);  // == layers where no block is adapted

// Which part of the model a rank holds.
struct Placement {
  int tp_rank = 0, tp_size = 1;
  int64_t layer_begin = 0, layer_end = 0;
  bool first = true, last = true;  // has the embedding; has the final norm and head
  bool operator==(const Placement&) const = default;
};

// This rank's part of one factor, called "model.layers.0.self_attn.q_proj.lora_A". Its group is its factor.
struct FactorSlice : Slice {
  Projection projection = Projection::q;
  Factor factor = Factor::a;
};
// Of all adapted linears that the rank holds, in the model's order: by layer, by projection, A before B. Laid out for
// flat buffers.
std::vector<FactorSlice> factor_slices(const ModelConfig& config, const AdapterLayout& layout,
                                       const Placement& placement);

class AdapterSet {
 public:
  // parameters, gradients (n) f32: flat buffers in which `factors` are laid out; gradients empty: nothing trains.
  // dtype: of the compute copies, which lie where the frozen weights have room for them, else in one flat buffer of
  // `arena`, which at fp32 is the parameters themselves.
  AdapterSet(const AdapterLayout& layout, std::vector<FactorSlice> factors, Tensor parameters, Tensor gradients,
             DType dtype, Backend& backend, Arena& arena);
  // An adapter that is only used: its parameters lie in `arena` too.
  AdapterSet(const AdapterLayout& layout, std::vector<FactorSlice> factors, DType dtype, Backend& backend,
             Arena& arena);

  const AdapterLayout& layout() const { return layout_; }
  std::span<const FactorSlice> factors() const { return factors_; }
  const FactorSlice* find(int64_t layer, Projection projection, Factor factor) const;
  int64_t rank_of(int64_t layer, Projection projection) const;  // 0: not adapted

  const Tensor parameters, gradients;  // (n) f32
  // The compute copy (row_count, col_count) of a factor, which follows its parameters from the next refresh on: `room`,
  // or, where that is empty, its place in the flat buffer.
  Tensor copy_of(const FactorSlice& f, Tensor room);

  // A as PEFT draws it: Kaiming uniform with a = √5, that is uniform in ±1/√fan_in with the global fan_in, by global
  // element index; B = 0.
  void initialise(uint64_t seed);
  // Fills every slice from a function that writes the slice's values, row-major.
  using FactorReader = std::function<void(const FactorSlice&, float* values)>;
  void load(const FactorReader& read);
  void refresh();  // compute copies := parameters
  // From now on the copies that lie with the layer's weights come and go with these: only refresh(layer) writes them.
  void pass_with_weights(int64_t layer) { passing_[layer]; }
  void refresh(int64_t layer);  // nothing where none of its copies lies with its weights

 private:
  Backend& backend_;
  AdapterLayout layout_;
  Arena& arena_;
  DType dtype_;
  Tensor copies_;                                     // (n) compute dtype; empty until a copy lies in it
  std::vector<CopyPair> placed_;                      // parameters to their copies in other room
  std::map<int64_t, std::vector<CopyPair>> passing_;  // those that pass with the weights of a layer
  std::vector<FactorSlice> factors_;
  std::vector<int64_t> positions_;  // in factors_, by layer, projection and factor; -1: not there
};

// Element `index` (row-major, of the whole factor) of the A named `name`: uniform in ±1/√fan_in.
class KaimingUniform {
 public:
  KaimingUniform(uint64_t seed, const std::string& name, int64_t fan_in);
  float at(int64_t index) const { return (2 * philox_uniform(key_, static_cast<uint64_t>(index)) - 1) * bound_; }

 private:
  PhiloxKey key_;
  float bound_;
};

}  // namespace drover
