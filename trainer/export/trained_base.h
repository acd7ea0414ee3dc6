// The base's weights in the numbers that an adapter was trained over: those that the files mean, or, where a run made
// fp8 or NF4 of plain numbers (model.weights), what these codes mean. bitsandbytes merges into the latter too.
#pragma once
#include <optional>

#include "kernels/base/quantise.h"
#include "model/base_weights.h"
#include "model/frozen_linear.h"

namespace drover {

class TrainedBase {
 public:
  // `base` outlives it.
  TrainedBase(BaseWeights& base, WeightsAs as) : base_(base), as_(as) {}

  BaseWeights& weights() { return base_; }
  // Rows [row, row + rows) of a whole tensor of `cols` columns, in fp32. Tensors are asked for one after the other:
  // what NF4 needs of a whole one is kept until the next. bad_data where NF4's blocks do not fit it.
  void read(const std::string& name, int64_t row, int64_t rows, int64_t cols, float* out);

 private:
  void read_fp8(const ParamSpec& spec, Range rows, float* out);
  void read_nf4(const ParamSpec& spec, Range rows, float* out);

  BaseWeights& base_;
  WeightsAs as_;
  std::string scaled_;  // the tensor that scales_ are of
  std::optional<Nf4Scales> scales_;
};

}  // namespace drover
