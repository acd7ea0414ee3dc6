// Adapters on disk as PEFT has them: adapter_config.json and adapter_model.safetensors with
//   base_model.model.<module path>.lora_A.weight (r, in) and .lora_B.weight (out, r) of a linear;
//   base_model.model.model.embed_tokens.lora_embedding_A (r, V) and …_B (D, r): ΔW (V, D) = scale·(B·A)ᵀ;
//   base_model.model.<module path>.weight, and .base_layer.weight of a module that has factors too: in place of the
//   base's (modules_to_save; PEFT saves the embedding and the head too where target_modules or a longer vocabulary
//   mean them).
// Factors of the embedding are called like those of linears here, ….lora_A and ….lora_B; weights ….weight.
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
// By name: "model.layers.0.self_attn.q_proj.lora_A", "lm_head.weight".
using AdapterMatrices = std::map<std::string, AdapterMatrix>;

using FactorShapes = std::map<std::string, std::pair<int64_t, int64_t>>;  // rows, cols
FactorShapes shapes_of(const AdapterMatrices& matrices);

class SafetensorsFile;
struct StoredTensor;

// An adapter directory: names, shapes and ranks are checked on opening, values are read a tensor at a time.
class AdapterFile {
 public:
  // missing_input when absent; bad_data naming the tensor: an A without its B, a rank other than the config's, a tensor
  // that the config does not mean.
  explicit AdapterFile(const fs::path& directory);
  const fs::path& directory() const { return directory_; }
  const AdapterConfig& config() const { return config_; }
  const FactorShapes& shapes() const { return shapes_; }
  bool has(const std::string& name) const { return shapes_.count(name) != 0; }
  AdapterMatrix read(const std::string& name) const;  // bad_data where it holds NaN or Inf
  // Rows and columns of a tensor, as ModelDirectory::read.
  void read(const std::string& name, int64_t row, int64_t rows, int64_t col, int64_t cols, DType to, void* out) const;
  std::vector<std::string> weights() const;  // the tensors that are no factors, which stand in place of the base's

 private:
  void take(const StoredTensor& tensor, const AdapterMatcher& matcher);
  void check_complete() const;
  fs::path directory_;
  AdapterConfig config_;
  std::shared_ptr<SafetensorsFile> file_;
  FactorShapes shapes_;
  std::map<std::string, std::string> stored_;  // the tensors' names in the file
};

struct Adapter {
  AdapterConfig config;
  AdapterMatrices matrices;
};
Adapter read_adapter(const fs::path& directory);  // all of it at once

struct LinearSize {
  std::string path;  // "model.layers.0.self_attn.q_proj"; the embedding is a linear from V to D
  int64_t out = 0, in = 0;
};
// bad_data naming every factor that is missing, has another shape than the model's linear, or belongs to no linear of
// the model.
void check_adapter(const AdapterConfig& config, const FactorShapes& factors, std::span<const LinearSize> linears,
                   const std::string& where);

// What an adapter's directory may hold: PEFT's two files, its page, and what comparison.json and logprobs.json say of
// them. A directory with nothing else may be replaced.
const std::set<std::string>& adapter_files();

// PEFT's two files into a directory that is there (dtype f32 or bf16, rounded to nearest even). `values` is asked for
// one factor after the other, so that no more than one is held.
using FactorValues = std::function<AdapterMatrix(const std::string& factor)>;
void write_adapter_files(const fs::path& directory, const AdapterConfig& config, const FactorShapes& shapes,
                         const FactorValues& values, DType dtype);

// Further files of a directory: their names, and who writes them into it before it appears.
struct MoreFiles {
  std::set<std::string> names;
  std::function<void(const fs::path& directory)> write;
};
// Writes the directory whole or not at all. An adapter that is there is replaced, with `more`; anything else there:
// usage.
void write_adapter(const fs::path& directory, const AdapterConfig& config, const FactorShapes& shapes,
                   const FactorValues& values, DType dtype, const MoreFiles& more = {});

}  // namespace drover
