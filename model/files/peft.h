// Adapters on disk as PEFT has them: adapter_config.json and adapter_model.safetensors with
// base_model.model.<module path>.lora_A.weight (r, in) and .lora_B.weight (out, r).
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "kernels/tensor.h"
#include "model/files/adapter_config.h"

namespace drover {

struct AdapterMatrix {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;  // row-major
  bool operator==(const AdapterMatrix&) const = default;
};
// By factor: "model.layers.0.self_attn.q_proj.lora_A".
using AdapterMatrices = std::map<std::string, AdapterMatrix>;

using FactorShapes = std::map<std::string, std::pair<int64_t, int64_t>>;  // rows, cols
FactorShapes shapes_of(const AdapterMatrices& matrices);

class SafetensorsFile;

// An adapter directory: names, shapes and ranks are checked on opening, values are read a factor at a time.
class AdapterFile {
 public:
  // missing_input when absent; bad_data naming the tensor: an A without its B, a rank other than the config's, a tensor
  // that the config does not mean.
  explicit AdapterFile(const fs::path& directory);
  const fs::path& directory() const { return directory_; }
  const AdapterConfig& config() const { return config_; }
  const FactorShapes& shapes() const { return shapes_; }
  AdapterMatrix read(const std::string& factor) const;  // bad_data where it holds NaN or Inf

 private:
  fs::path directory_;
  AdapterConfig config_;
  std::shared_ptr<SafetensorsFile> file_;
  FactorShapes shapes_;
};

struct Adapter {
  AdapterConfig config;
  AdapterMatrices matrices;
};
Adapter read_adapter(const fs::path& directory);  // all of it at once

struct LinearSize {
  std::string path;  // "model.layers.0.self_attn.q_proj"
  int64_t out = 0, in = 0;
};
// bad_data naming every factor that is missing, has another shape than the model's linear, or belongs to no linear of
// the model.
void check_adapter(const AdapterConfig& config, const FactorShapes& shapes, std::span<const LinearSize> linears,
                   const std::string& where);

// Writes the directory whole or not at all (dtype f32 or bf16, rounded to nearest even). An adapter that is there is
// replaced, with `more`; anything else there: usage. `values` is asked for one factor after the other, so that no more
// than one is held. Further files of the directory: their names, and who writes them into it before it appears.
struct MoreFiles {
  std::set<std::string> names;
  std::function<void(const fs::path& directory)> write;
};
using FactorValues = std::function<AdapterMatrix(const std::string& factor)>;
void write_adapter(const fs::path& directory, const AdapterConfig& config, const FactorShapes& shapes,
                   const FactorValues& values, DType dtype, const MoreFiles& more = {});

}  // namespace drover
