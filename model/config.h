// What config.json says about the arithmetic of a LlamaForCausalLM. Anything it says that this struct cannot hold is
// refused (bad_data), naming the field. How weights are quantised is no part of it: model/files/quantisation_config.h
// reads that.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/file.h"

namespace drover {

// Llama 3's frequency scaling; in config.json under rope_scaling, or under rope_parameters as transformers v5 writes
// it.
struct RopeScaling {
  double factor = 8, low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_max_positions = 8192;
  bool operator==(const RopeScaling&) const = default;
};

struct ModelConfig {
  int64_t hidden = 0;  // D
  int64_t layers = 0;
  int64_t heads = 0;     // H
  int64_t kv_heads = 0;  // K, divides H
  int64_t head_dim = 0;  // E, even; H·E need not be D
  int64_t ffn = 0;       // F
  int64_t vocab = 0;     // V
  int64_t max_positions = 0;
  double norm_eps = 1e-5;
  double rope_theta = 10000;
  std::optional<RopeScaling> rope_scaling;
  bool tied_head = false;                  // lm_head.weight is model.embed_tokens.weight
  int32_t bos = -1;                        // -1: none
  std::vector<int32_t> eos;                // of config.json, and what generation_config.json has more
  std::string storage_dtype = "bfloat16";  // torch_dtype / dtype of the checkpoint
  bool operator==(const ModelConfig&) const = default;
};

ModelConfig parse_model_config(const std::string& json_text,
                               const std::string& where);  // bad_data with the field and what is allowed
// DIR/config.json, missing_input when absent, with the eos ids of DIR/generation_config.json where there is one.
ModelConfig read_model_config(const fs::path& directory);
// Adds the eos ids of DIR/generation_config.json, where there is one, that are not there yet.
void add_stop_ids(const fs::path& directory, ModelConfig& config);
std::string write_model_config(const ModelConfig& config);  // config.json as transformers v4 spells it (v5 reads it)

int64_t parameter_count(const ModelConfig& config);

// Shapes known by name: "llama3.1-8b", "llama3.1-70b", "llama3.1-405b", "llama3.2-1b", "llama3.2-3b", "smollm2-135m".
// Nothing for other names.
std::optional<ModelConfig> known_model(const std::string& name);
std::vector<std::string> known_model_names();

}  // namespace drover
