// One weight of a model that is written, with all the tensors that store it: they stand in one file, so that files can
// be written in any order and by several processes.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "trainer/export/merge_report.h"
#include "trainer/export/quantised_linear.h"

namespace drover {

class WeightPart {
 public:
  using Put = QuantisedLinear::Put;

  virtual ~WeightPart() = default;
  virtual std::vector<TensorSpec> tensors() const = 0;
  // The bytes of one of them, in pieces; of a weight that is quantised, X.weight before what belongs to it.
  virtual void write(const std::string& tensor, const Put& put) = 0;
  // Of what was written. Nothing where its numbers are those that were there.
  const std::optional<TensorUpdate>& update() const { return update_; }

 protected:
  std::optional<TensorUpdate> update_;
};

using WeightParts = std::vector<std::unique_ptr<WeightPart>>;

}  // namespace drover
