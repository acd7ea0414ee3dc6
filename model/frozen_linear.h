// The frozen weight of linears that read one input: in which format it is held, and how codes and scales get there from
// where the model comes from. Dense files become fp8 or NF4 here, each rank its slice only: a block of a slice is a
// block of the whole tensor, so that tensor parallelism changes no bit.
#pragma once
#include <memory>
#include <span>

#include "model/weight_source.h"

namespace drover {

// model.weights: what frozen linears are in memory. The embedding, the head and the norms are never quantised.
enum class WeightsAs : uint8_t {
  as_is,  // codes stay codes; plain numbers become those that compute
  dense,  // codes are dequantised
  fp8,    // plain numbers and NF4 become fp8 in blocks of 128 × 128; fp8 of any scaling stays
  nf4,    // plain numbers and fp8 become NF4 with double quantisation; NF4 stays
};

// How a linear's codes are scaled in memory; nothing where it is held as numbers.
std::optional<StoredScaling> held_scaling(const std::optional<StoredScaling>& stored, WeightsAs as);

// What becomes of frozen linears in memory, and in products.
struct HeldAs {
  WeightsAs weights = WeightsAs::as_is;
  Products products = Products::widened;  // of those that are held in fp8 and multiplies_in_fp8 takes
  DType dtype = DType::f32;               // of plain numbers
  int threads = 1;                        // that make codes
};

// One linear's rows and columns of this rank.
struct LinearSlice {
  const ParamSpec* spec;
  Range rows, cols;
};

class FrozenLinear {
 public:
  // Members one under another, of the same columns. bad_recipe where a slice cannot be cut from NF4's blocks.
  FrozenLinear(std::span<const LinearSlice> members, WeightSource& source, const HeldAs& as);
  WeightShape shape(int64_t adapter_rank) const;
  bool is_made() const { return !is_dense(format_) && !stored_; }  // codes that no file holds
  void load(Weight& weight, Backend& backend) const;

 private:
  bool ends_between_blocks() const;
  void load_dense(Weight& weight, Backend& backend) const;
  void load_fp8(Weight& weight, Backend& backend, size_t part) const;
  void load_nf4(Weight& weight, Backend& backend, size_t part) const;
  void make_fp8(Weight& weight, Backend& backend, size_t part) const;
  void make_nf4(Weight& weight, Backend& backend, size_t part) const;

  std::vector<LinearSlice> members_;
  WeightSource& source_;
  HeldAs as_;
  Format format_;
  bool stored_ = false;  // the format is that of the files
  StoredScaling scaling_;
};

}  // namespace drover
