// What a model directory says of its quantised weights: config.json's quantization_config (or compression_config), or
// hf_quant_config.json next to it. Read are five layouts: bitsandbytes' NF4, Meta's fbgemm_fp8, fp8 in blocks,
// compressed-tensors' float-quantized and ModelOpt's FP8. Every other one is refused by its name (bad_data).
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/file.h"
#include "kernels/base/json.h"
#include "kernels/base/quantised.h"
#include "model/files/path_pattern.h"

namespace drover {

enum class QuantMethod : uint8_t { bitsandbytes, fbgemm_fp8, fp8, compressed_tensors, modelopt };

// Modules by their paths ("model.layers.3.mlp.up_proj").
class ModulePattern {
 public:
  static ModulePattern everything(const std::string& where);
  static ModulePattern exactly(const std::string& path, const std::string& where);
  static ModulePattern part(const std::string& components, const std::string& where);   // "self_attn", "layers.0"
  static ModulePattern wildcard(const std::string& text, const std::string& where);     // * and ?
  static ModulePattern regex(const std::string& expression, const std::string& where);  // from a path's beginning on

  bool matches(const std::string& module) const {
    return whole_ ? pattern_.full_match(module) : pattern_.match(module);
  }

 private:
  ModulePattern(const std::string& expression, bool whole, const std::string& where)
      : pattern_(expression, where), whole_(whole) {}
  PathPattern pattern_;
  bool whole_;
};

struct QuantisationConfig {
  QuantMethod method = QuantMethod::fp8;
  std::string place;  // of the object: "DIR/config.json: quantization_config"

  // fp8: modules that share a layout of scales. The first that matches counts.
  struct Group {
    std::vector<ModulePattern> modules;
    std::optional<ScaleBlocks> blocks;  // none: {0, 0} where one scale is stored, else {128, 128}
  };
  std::vector<Group> groups;
  float largest_input = 0;  // fbgemm_fp8's activation_scale_ub: x is cut to it for products in fp8; 0: it is not
  std::vector<ModulePattern> kept;  // modules that are not quantised

  bool keeps(const std::string& module) const;
  const Group* group_of(const std::string& module) const;  // of a module that is not kept; nothing where none matches
  bool is_nf4() const { return method == QuantMethod::bitsandbytes; }
};

// Of config.json's whole object: nothing where it says nothing.
std::optional<QuantisationConfig> parse_quantisation(const Json& config, const std::string& where);
// Of hf_quant_config.json's.
QuantisationConfig parse_modelopt(const Json& json, const std::string& where);
// Of a directory with config.json.
std::optional<QuantisationConfig> read_quantisation(const fs::path& directory);

// Whether a tensor belongs to a weight that is quantised, or says how activations were: "…weight_scale", "…k_scale".
bool is_quantisation_data(const std::string& tensor);

}  // namespace drover
