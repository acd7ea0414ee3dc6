// In which formats the weights of a quantised model directory are stored: "fp8", "nf4", or a number type ("BF16").
#pragma once
#include <map>
#include <string>
#include <vector>

#include "model/files/model_directory.h"

namespace drover {

struct StoredFormats {
  struct Weight {
    std::string format;
    std::vector<int64_t> shape;  // of what the codes mean
  };
  std::string method;                          // of quantisation, as config.json spells it; "none" without one
  std::map<std::string, Weight> weights;       // by name, without the tensors that belong to another
  std::map<std::string, std::string> part_of;  // of those, such as scales: the weight that they belong to
  std::map<std::string, int64_t> linears;      // of the blocks, by format
  std::map<std::string, int64_t> bytes;        // by format, with scales and what else belongs to codes
};

// Opens every file. bad_data as ModelDirectory has it.
StoredFormats stored_formats(ModelDirectory& model);

}  // namespace drover
