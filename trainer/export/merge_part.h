// The weights of a merged model. What was merged is checked where it is written (MergedTensor).
#pragma once
#include "model/weight_table.h"
#include "trainer/export/merged_rows.h"
#include "trainer/export/weight_part.h"

namespace drover {

class MergePart : public WeightPart {
 protected:
  void add(const MergedTensor& piece, const std::vector<float>& merged, const std::string& name);
};

// A weight in the number type that the base has, or would have without its quantisation. `rows` outlives it.
std::unique_ptr<WeightPart> plain_part(const ParamSpec& spec, BaseWeights& base, MergedRows& rows);

// All weights of a model in plain numbers, in the table's order.
WeightParts plain_parts(const std::vector<ParamSpec>& table, BaseWeights& base, MergedRows& rows);

// The same in the base's own format. What the adapter does not name keeps its bytes; what it names is requantised: fp8
// in blocks of 128 × 128 and NF4 with double quantisation. usage for a base that is not quantised, and, naming the
// weight, where the adapter names one in another layout or brings one of its own.
WeightParts kept_parts(const std::vector<ParamSpec>& table, const AdapterConfig& adapter, BaseWeights& base,
                       MergedRows& rows);

}  // namespace drover
