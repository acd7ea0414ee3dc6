// Low-rank adapters (LoRA, Hu et al. 2021): y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ, A (r,in), B (out,r), s = alpha/r or alpha/√r.
// The rank's share of all factors of its layers lies in flat fp32 buffers (parameters, gradients, moments), whole factors first:
// a split-output linear keeps A whole and deals B's rows; a split-input one deals A's columns and keeps B whole.
// The gradient of a whole factor is a partial sum on every tensor-parallel rank: it is reduced over tp once a step. Split factors are complete.
#pragma once
#include <array>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/base/philox.h"
#include "model/files/factor.h"
#include "model/weight_table.h"

namespace drover {

struct LowRankSpec {
  int64_t r = 0;
  float scale = 1;
};
using AdapterLayout = std::vector<std::array<std::optional<LowRankSpec>, kProjections>>;  // by layer, by projection

// Asks `match` for every linear by its module path; 65 when nothing matches.
AdapterLayout adapter_layout(const ModelConfig& config, const std::function<std::optional<LowRankSpec>(const std::string& path)>& match);
int64_t trainable_parameters(const ModelConfig& config, const AdapterLayout& layout);
int64_t lowest_adapted_layer(const AdapterLayout& layout);  // == layers when there is none

// Which part of the model a rank holds.
struct Placement {
  int tp_rank = 0, tp_size = 1;
  int64_t layer_begin = 0, layer_end = 0;
  bool first = true, last = true;  // has the embedding; has the final norm and head
  bool operator==(const Placement&) const = default;
};

// One factor of one linear: its global shape and the slice of it that this rank holds, at `offset` of the flat buffers.
struct FactorSlice {
  std::string name;  // "model.layers.0.self_attn.q_proj.lora_A"
  int64_t layer = 0;
  Projection projection = Projection::q;
  Factor factor = Factor::a;
  int64_t rows = 0, cols = 0;                                            // global
  int64_t row_begin = 0, row_count = 0, col_begin = 0, col_count = 0;  // the slice
  int64_t offset = 0;                                                    // elements
  bool whole = true;
  int64_t size() const { return row_count * col_count; }
};

class AdapterSet {
 public:
  // `optimizer` null: no gradients and no moments (inference). dtype: of the compute copies. Where the backend has strips, those lie beside the frozen
  // weights (`place`); else in one flat buffer, which at fp32 is the parameters themselves.
  AdapterSet(const ModelConfig& config, const AdapterLayout& layout, const Placement& placement, DType dtype, Backend& backend, Arena& adapter,
             Arena* optimizer);

  const AdapterLayout& layout() const { return layout_; }
  std::span<const FactorSlice> factors() const { return factors_; }
  const FactorSlice* find(int64_t layer, Projection projection, Factor factor) const;
  int64_t rank_of(int64_t layer, Projection projection) const;  // 0: not adapted
  int64_t size() const { return size_; }
  int64_t whole_size() const { return whole_size_; }

  Tensor parameters, gradients, moment1, moment2;  // (size) f32; the last three are empty without an optimizer
  Tensor copies;                                   // (size) compute dtype; empty where the copies are placed
  void place(const FactorSlice& f, Tensor copy);   // `copy` (row_count, col_count) follows the parameters of this factor from now on
  Tensor whole(Tensor flat) const { return flat.rows_from(0, whole_size_); }
  Tensor split(Tensor flat) const { return flat.rows_from(whole_size_, size_ - whole_size_); }
  Tensor view(Tensor flat, const FactorSlice& f) const;  // (row_count, col_count) of a flat buffer

  // Consecutive elements of the flat buffers that belong to one layer and one region.
  struct LayerRun {
    int64_t layer = 0, offset = 0, size = 0;
    bool whole = true;
  };
  std::vector<LayerRun> layer_runs() const;

  // A as PEFT draws it: Kaiming uniform with a = √5, that is uniform in ±1/√fan_in with the global fan_in, by global element index; B = 0.
  void initialise(uint64_t seed);
  // Fills every slice from a function that writes the slice's values, row-major.
  using FactorReader = std::function<void(const FactorSlice&, float* values)>;
  void load(const FactorReader& read);
  void refresh();  // compute copies := parameters

 private:
  Backend& backend_;
  AdapterLayout layout_;
  std::vector<CopyPair> placed_;  // parameters to their copies beside the weights
  std::vector<FactorSlice> factors_;
  int64_t size_ = 0, whole_size_ = 0;
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
