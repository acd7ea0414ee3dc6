// Which modules an adapter means: PEFT's rules (its check_target_module_exists and get_pattern_key), on module paths.
#include <algorithm>
#include <cmath>

#include "kernels/base/error.h"
#include "model/files/adapter_config.h"
#include "model/files/path_pattern.h"

namespace drover {

namespace {

bool named(const AdapterConfig::Names& names, const std::string& path) {
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return path == name || path.ends_with("." + name); });
}

template <typename Value>
std::optional<Value> first_match(const std::vector<PathPattern>& patterns,
                                 const std::vector<std::pair<std::string, Value>>& values, const std::string& path) {
  for (size_t i = 0; i < patterns.size(); ++i) {
    if (patterns[i].match(path)) return values[i].second;
  }
  return std::nullopt;
}

}  // namespace

struct AdapterMatcher::Patterns {
  std::optional<PathPattern> target, exclude;
  std::vector<PathPattern> layers, ranks, alphas;
};

AdapterMatcher::AdapterMatcher(const AdapterConfig& config, const std::string& where) : config_(config) {
  auto patterns = std::make_shared<Patterns>();
  const auto* target = std::get_if<std::string>(&config.target_modules);
  if (target != nullptr && !config.all_linear()) patterns->target.emplace(*target, where + ": target_modules");
  const auto* exclude = std::get_if<std::string>(&config.exclude_modules);
  if (exclude != nullptr && !exclude->empty()) patterns->exclude.emplace(*exclude, where + ": exclude_modules");
  if (config.layers_pattern.empty()) patterns->layers.emplace_back(R"(.*?\.[^.]*\.(?P<idx>\d+)\.)", where);
  for (const std::string& name : config.layers_pattern) {
    patterns->layers.emplace_back(R"((?:^|.*?\.))" + name + R"(\.(?P<idx>\d+)\.)", where + ": layers_pattern");
  }
  for (const auto& [key, r] : config.rank_pattern)
    patterns->ranks.emplace_back(R"((.*\.)?()" + key + ")$", where + ": rank_pattern");
  for (const auto& [key, alpha] : config.alpha_pattern)
    patterns->alphas.emplace_back(R"((.*\.)?()" + key + ")$", where + ": alpha_pattern");
  patterns_ = std::move(patterns);
}

bool AdapterMatcher::targeted(const std::string& path) const {
  if (patterns_->exclude && patterns_->exclude->full_match(path)) return false;
  if (const auto* names = std::get_if<AdapterConfig::Names>(&config_.exclude_modules);
      names != nullptr && named(*names, path))
    return false;
  if (config_.all_linear()) return path != kHeadModule && path != kEmbeddingModule;
  if (patterns_->target) return patterns_->target->full_match(path);
  if (!named(std::get<AdapterConfig::Names>(config_.target_modules), path)) return false;
  if (!config_.layers_to_transform) return true;
  for (const PathPattern& pattern : patterns_->layers) {
    const auto index = pattern.number(path, "idx");
    if (!index) continue;
    const auto& layers = *config_.layers_to_transform;
    return std::find(layers.begin(), layers.end(), *index) != layers.end();
  }
  return false;
}

bool AdapterMatcher::saved(const std::string& path) const {
  for (size_t end = path.find('.');; end = path.find('.', end + 1)) {
    const std::string module = path.substr(0, end);
    for (const std::string& name : config_.modules_to_save) {
      if (module.ends_with(name)) return true;
    }
    if (end == std::string::npos) return false;
  }
}

std::optional<AdapterTarget> AdapterMatcher::match(const std::string& path) const {
  if (!targeted(path)) return std::nullopt;
  AdapterTarget target;
  target.r = first_match(patterns_->ranks, config_.rank_pattern, path).value_or(config_.r);
  target.alpha = first_match(patterns_->alphas, config_.alpha_pattern, path).value_or(config_.alpha);
  const double r = static_cast<double>(target.r);
  target.scale = target.alpha / (config_.use_rslora ? std::sqrt(r) : r);
  return target;
}

}  // namespace drover
