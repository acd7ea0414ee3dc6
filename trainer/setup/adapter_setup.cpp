#include "trainer/setup/adapter_setup.h"

#include <algorithm>

#include "kernels/base/error.h"
#include "model/files/peft.h"

namespace drover {

AdapterConfig adapter_config(const ReadRecipe& read) {
  const LoraSection& l = read.recipe.lora;
  AdapterConfig config;
  config.r = l.r;
  config.alpha = l.alpha;
  config.dropout = l.dropout;
  config.use_rslora = l.use_rslora;
  if (l.target_modules.names.empty()) {
    config.target_modules = l.target_modules.pattern;
  } else {
    config.target_modules = l.target_modules.names;
  }
  for (const auto& [key, value] : l.rank_pattern) config.rank_pattern.emplace_back(key, static_cast<int64_t>(value));
  config.alpha_pattern = l.alpha_pattern;
  config.base_model_name_or_path = read.recipe.model.path;
  if (!l.init_from) {
    check_trains_linears_only(config, "lora.target_modules");
    return config;
  }

  AdapterConfig first = adapter_config_in(*l.init_from);
  const auto same = [&](const char* key, bool equal) {
    const std::string name = std::string("lora.") + key;
    if (read.origins.count(name) != 0 && !equal) {
      fail(Fault::bad_recipe,
           "{} ({}) differs from the adapter in lora.init_from {}; leave the key out, or start without init_from", name,
           read.origins.at(name), *l.init_from);
    }
  };
  same("r", config.r == first.r);
  same("alpha", config.alpha == first.alpha);
  same("use_rslora", config.use_rslora == first.use_rslora);
  same("target_modules", config.target_modules == first.target_modules);
  same("rank_pattern", config.rank_pattern == first.rank_pattern);
  same("alpha_pattern", config.alpha_pattern == first.alpha_pattern);
  check_trains_linears_only(first, fmt::format("lora.init_from {}", *l.init_from));
  first.base_model_name_or_path = config.base_model_name_or_path;
  first.dropout = config.dropout;
  return first;
}

AdapterConfig adapter_config_in(const fs::path& directory) {
  const fs::path file = directory / "adapter_config.json";
  return parse_adapter_config(read_text(file, size_t{1} << 20), file.string());
}

void check_trains_linears_only(const AdapterConfig& adapter, const std::string& key) {
  const AdapterMatcher matcher(adapter);
  const bool embedding = matcher.match(kEmbeddingModule).has_value();
  if (!embedding && adapter.modules_to_save.empty()) return;
  fail(Fault::bad_recipe,
       "{}: {} {} not trained; such adapters are evaluated, used and merged only. Leave {} out, or merge the adapter "
       "(export --model DIR --from ADAPTER --merged OUT) and train on the merged model",
       key,
       embedding ? kEmbeddingModule : fmt::format("modules_to_save ({})", fmt::join(adapter.modules_to_save, ", ")),
       embedding ? "is" : "are", embedding ? "it" : "them");
}

AdapterLayout adapter_layout_of(const ModelConfig& model, const AdapterConfig& adapter) {
  const AdapterMatcher matcher(adapter);
  const auto is_adapted = [&](const LinearPlace& linear) {
    return matcher.match(module_path(linear.layer, linear.projection)).has_value();
  };
  if (matcher.match(kEmbeddingModule) && std::ranges::none_of(linears_of(model), is_adapted)) return {};
  return adapter_layout(model, [&](const std::string& path) -> std::optional<LowRankSpec> {
    const auto target = matcher.match(path);
    if (!target) return std::nullopt;
    return LowRankSpec{target->r, static_cast<float>(target->scale)};
  });
}

}  // namespace drover
