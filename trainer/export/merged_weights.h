// A model's weights as they would be merged with an adapter, rounded to the base's number types, for computing with
// them where no merged model is written.
#pragma once
#include "model/weight_source.h"
#include "trainer/export/merged_rows.h"

namespace drover {

class MergedWeights : public WeightSource {
 public:
  // Everything outlives it. `backend` multiplies, in the host's memory. `as` as MergedRows has it.
  MergedWeights(const AdapterSource& adapter, BaseWeights& base, Backend& backend, WeightsAs as = WeightsAs::as_is)
      : base_(base), rows_(adapter, base, backend, as) {}

  // Errors as MergedTensor has them.
  void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to) override;

 private:
  BaseWeights& base_;
  MergedRows rows_;
};

}  // namespace drover
