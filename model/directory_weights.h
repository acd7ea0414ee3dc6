// Frozen weights read from a Hugging Face directory, each rank its slices only.
#pragma once
#include <vector>

#include "model/files/model_directory.h"
#include "model/stage.h"

namespace drover {

class DirectoryWeights : public WeightSource {
 public:
  explicit DirectoryWeights(ModelDirectory& directory) : directory_(directory) {}
  void read(const ParamSpec& spec, int64_t row, int64_t col, Tensor to, Backend& backend) override;

 private:
  ModelDirectory& directory_;
  std::vector<char> staging_;  // of the largest slice so far
};

}  // namespace drover
