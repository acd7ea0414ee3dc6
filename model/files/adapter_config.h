// adapter_config.json as PEFT writes it, and PEFT's rules for which modules it adapts, with which rank and scale.
// Whatever it may say that Drover does not do (DoRA, biases, other adapter types, …) is refused by name (bad_data).
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "kernels/base/file.h"

namespace drover {

struct AdapterTarget {
  int64_t r = 0;
  double alpha = 0;
  double scale = 0;  // alpha / r, or alpha / √r with rsLoRA
};

struct AdapterConfig {
  using Names = std::vector<std::string>;
  int64_t r = 8;
  double alpha = 8;
  double dropout = 0;
  bool use_rslora = false;
  // Names: a path is meant when it equals one or ends in "." + one. A string: "all-linear", or a regex that must match
  // the whole path.
  std::variant<Names, std::string> target_modules = Names{"q_proj", "v_proj"};
  std::variant<Names, std::string> exclude_modules = Names{};  // the same rules
  std::optional<std::vector<int64_t>> layers_to_transform;
  Names layers_pattern;
  // re.match("(.*\.)?(key)$", path); the first key that matches holds.
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  // Modules whose weights the adapter has in place of the base's: those whose path ends in one of these, with all
  // below.
  Names modules_to_save;
  // On a model whose head is tied to the embedding: adapters of one are of the other too.
  bool ensure_weight_tying = false;
  std::string base_model_name_or_path;

  bool all_linear() const;
  bool operator==(const AdapterConfig&) const = default;
};

AdapterConfig parse_adapter_config(const std::string& json_text,
                                   const std::string& where);  // bad_data with the field and what is allowed
// Keys sorted as PEFT has them, patterns in their order (it decides). all-linear is written as the seven names, which
// every reader knows.
std::string write_adapter_config(const AdapterConfig& config);

inline constexpr const char* kEmbeddingModule = "model.embed_tokens";
inline constexpr const char* kHeadModule = "lm_head";

// Answers for module paths such as "model.layers.0.self_attn.q_proj". Construction checks the patterns (bad_data).
class AdapterMatcher {
 public:
  explicit AdapterMatcher(const AdapterConfig& config, const std::string& where = "lora");
  std::optional<AdapterTarget> match(const std::string& path) const;
  bool saved(const std::string& path) const;  // whether modules_to_save means it

 private:
  struct Patterns;
  bool targeted(const std::string& path) const;
  AdapterConfig config_;
  std::shared_ptr<const Patterns> patterns_;
};

}  // namespace drover
