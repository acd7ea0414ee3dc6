#include "trainer/generation/loaded_adapter.h"

#include "kernels/base/hash.h"
#include "trainer/export/export.h"

namespace drover {

LoadedAdapter load_adapter_slices(const AdapterFile& file, const AdapterLayout& layout, const ModelConfig& model,
                                  const Placement& placement) {
  check_fits(file, model);
  LoadedAdapter loaded{adapter_hash(file.directory()), layout, factor_slices(model, layout, placement), {}};
  for (const FactorSlice& slice : loaded.slices) {
    std::vector<float>& values = loaded.values.emplace_back(static_cast<size_t>(slice.size()));
    copy_slice(file.read(slice.name), slice, values.data());
  }
  return loaded;
}

std::string adapter_hash(const fs::path& directory) {
  return sha256_file(directory / "adapter_model.safetensors") + sha256_file(directory / "adapter_config.json");
}

}  // namespace drover
