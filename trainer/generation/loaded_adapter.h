// An adapter in host memory, as one rank holds it: read by any thread, which takes as long as the disk does; what is
// left to do between two passes is a copy.
#pragma once
#include <string>
#include <vector>

#include "model/adapter.h"
#include "model/files/peft.h"

namespace drover {

struct LoadedAdapter {
  std::string hash;  // of the content of its files
  AdapterLayout layout;
  std::vector<FactorSlice> slices;
  std::vector<std::vector<float>> values;  // of the slices, row-major
};

// The part of `placement`. bad_data naming the tensor that does not fit the model or is not finite.
LoadedAdapter load_adapter_slices(const AdapterFile& file, const AdapterLayout& layout, const ModelConfig& model,
                                  const Placement& placement);

// SHA-256 of both files of an adapter's directory.
std::string adapter_hash(const fs::path& directory);

}  // namespace drover
