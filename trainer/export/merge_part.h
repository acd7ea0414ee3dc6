// One weight of a merged model, with all the tensors that store it: they stand in one file, so that files can be
// written in any order and by several processes.
#pragma once
#include <memory>

#include "model/weight_table.h"
#include "trainer/export/merge_report.h"
#include "trainer/export/merged_rows.h"
#include "trainer/export/quantised_linear.h"

namespace drover {

class MergePart {
 public:
  using Put = QuantisedLinear::Put;

  virtual ~MergePart() = default;
  virtual std::vector<TensorSpec> tensors() const = 0;
  // The bytes of one of them, in pieces; of a weight that is quantised, X.weight before what belongs to it. What was
  // merged is checked (MergedTensor).
  virtual void write(const std::string& tensor, const Put& put) = 0;
  // Of what was written. Nothing where the adapter does not name the weight.
  const std::optional<TensorUpdate>& update() const { return update_; }

 protected:
  void add(const MergedTensor& piece, const std::vector<float>& merged, const std::string& name);

 private:
  std::optional<TensorUpdate> update_;
};

using MergeParts = std::vector<std::unique_ptr<MergePart>>;

// A weight in the number type that the base has, or would have without its quantisation. `rows` outlives it.
std::unique_ptr<MergePart> plain_part(const ParamSpec& spec, BaseWeights& base, MergedRows& rows);

// All weights of a model in plain numbers, in the table's order.
MergeParts plain_parts(const std::vector<ParamSpec>& table, BaseWeights& base, MergedRows& rows);

// The same in the base's own format. What the adapter does not name keeps its bytes; what it names is requantised: fp8
// in blocks of 128 × 128 and NF4 with double quantisation. usage for a base that is not quantised, and, naming the
// weight, where the adapter names one in another layout or brings one of its own.
MergeParts kept_parts(const std::vector<ParamSpec>& table, const AdapterConfig& adapter, BaseWeights& base,
                      MergedRows& rows);

}  // namespace drover
