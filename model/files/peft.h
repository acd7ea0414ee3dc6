// Adapters on disk as PEFT has them: adapter_config.json and adapter_model.safetensors with
// base_model.model.<module path>.lora_A.weight (r, in) and .lora_B.weight (out, r).
#pragma once
#include <map>
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

struct Adapter {
  AdapterConfig config;
  AdapterMatrices matrices;
};

// 66 when absent; 65 naming the tensor: an A without its B, a rank other than the config's, NaN or Inf, a tensor that the config does not mean.
Adapter read_adapter(const fs::path& directory);

struct LinearSize {
  std::string path;  // "model.layers.0.self_attn.q_proj"
  int64_t out = 0, in = 0;
};
// 65 naming every factor that is missing, has another shape than the model's linear, or belongs to no linear of the model.
void check_adapter(const Adapter& adapter, std::span<const LinearSize> linears, const std::string& where);

// Writes the directory whole or not at all (dtype f32 or bf16, rounded to nearest even). An adapter that is there is replaced; anything else there: 64.
void write_adapter(const fs::path& directory, const AdapterConfig& config, const AdapterMatrices& matrices, DType dtype);

}  // namespace drover
