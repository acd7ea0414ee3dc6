#include "model/files/adapter_config.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/base/json.h"
#include "model/files/config_fields.h"

namespace drover {

namespace {

constexpr int64_t kLargestRank = 65'536;
constexpr double kLargestAlpha = 1e9;

const AdapterConfig::Names kSevenNames = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

std::variant<AdapterConfig::Names, std::string> names_or_text(const ConfigFields& fields, const std::string& name) {
  const Json& value = *fields.find(name);
  if (value.is_string()) return value.get<std::string>();
  const auto is_text = [](const Json& item) { return item.is_string(); };
  if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_text)) {
    fail(Fault::bad_data, "{} is {}; allowed are a list of module names or one string", fields.place(name),
         clipped(value.dump()));
  }
  return value.get<AdapterConfig::Names>();
}

bool is_empty(const Json& value) {
  return value.is_null() || value == false || ((value.is_array() || value.is_object()) && value.empty());
}

// Read here or by parse_adapter_config; or of no effect on a finished adapter: where it comes from, how it was begun.
const std::set<std::string> kKnown = {"peft_type",
                                      "task_type",
                                      "bias",
                                      "init_lora_weights",
                                      "r",
                                      "lora_alpha",
                                      "lora_dropout",
                                      "use_rslora",
                                      "target_modules",
                                      "exclude_modules",
                                      "layers_to_transform",
                                      "layers_pattern",
                                      "rank_pattern",
                                      "alpha_pattern",
                                      "base_model_name_or_path",
                                      "auto_mapping",
                                      "modules_to_save",
                                      "corda_config",
                                      "ensure_weight_tying",
                                      "eva_config",
                                      "inference_mode",
                                      "loftq_config",
                                      "megatron_core",
                                      "peft_version",
                                      "qalora_group_size",
                                      "revision",
                                      "runtime_config"};

// A setting that is switched on and that nothing here knows may change the arithmetic.
void refuse_unknown(const ConfigFields& fields) {
  for (const auto& [name, value] : fields.items()) {
    if (kKnown.count(name) != 0 || is_empty(value)) continue;
    fail(
        Fault::bad_data,
        "{} is {}: this kind of adapter, or a setting of another PEFT, is not supported. Where it does not change what "
        "the adapter computes, take it out of the file",
        fields.place(name), clipped(value.dump()));
  }
}

// What changes the adapter's arithmetic or needs parameters that Drover does not have.
void refuse_other_adapters(const ConfigFields& fields) {
  if (!fields.has("peft_type")) fail(Fault::bad_data, "{} is missing; allowed is \"LORA\"", fields.place("peft_type"));
  fields.allow_text("peft_type", "LORA");
  fields.allow_text("task_type", "CAUSAL_LM");
  fields.allow_text("bias", "none");
  refuse_unknown(fields);
  if (const Json* init = fields.find("init_lora_weights")) {
    // The other initialisations change the base weights too, so the adapter does not belong to the model as published.
    if (!init->is_boolean() && *init != "gaussian" && *init != "eva" && *init != "orthogonal") {
      fail(Fault::bad_data,
           "{} is {}: such adapters belong to changed base weights; allowed are true, false, \"gaussian\", \"eva\" and "
           "\"orthogonal\"",
           fields.place("init_lora_weights"), clipped(init->dump()));
    }
  }
}

void parse_layers(const ConfigFields& fields, AdapterConfig& config) {
  if (const Json* layers = fields.find("layers_to_transform")) {
    const auto is_index = [](const Json& i) { return i.is_number_unsigned() && i.get<uint64_t>() < 1'000'000; };
    const bool list = layers->is_array() && std::all_of(layers->begin(), layers->end(), is_index);
    if (!list && !is_index(*layers)) {
      fail(Fault::bad_data, "{} is {}; allowed are layer numbers from 0", fields.place("layers_to_transform"),
           clipped(layers->dump()));
    }
    if (!list) config.layers_to_transform = {layers->get<int64_t>()};
    if (list && !layers->empty()) config.layers_to_transform = layers->get<std::vector<int64_t>>();
  }
  if (fields.has("layers_pattern")) {
    const auto pattern = names_or_text(fields, "layers_pattern");
    const auto* names = std::get_if<AdapterConfig::Names>(&pattern);
    if (names != nullptr) config.layers_pattern = *names;
    if (names == nullptr && !std::get<std::string>(pattern).empty())
      config.layers_pattern = {std::get<std::string>(pattern)};
  }
  if (config.layers_to_transform && std::holds_alternative<std::string>(config.target_modules)) {
    fail(Fault::bad_data, "{} needs a list of target_modules, not with a string", fields.place("layers_to_transform"));
  }
  if (!config.layers_pattern.empty() && !config.layers_to_transform) {
    fail(Fault::bad_data, "{} needs layers_to_transform too", fields.place("layers_pattern"));
  }
}

Json whole_or_real(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

Json as_json(const std::variant<AdapterConfig::Names, std::string>& modules) {
  return std::visit([](const auto& value) { return Json(value); }, modules);
}

}  // namespace

bool AdapterConfig::all_linear() const {
  const auto* text = std::get_if<std::string>(&target_modules);
  return text != nullptr && lower(*text) == "all-linear";
}

AdapterConfig parse_adapter_config(const std::string& json_text, const std::string& where) {
  const OrderedJson ordered = parse_ordered_json(json_text, where);
  if (!ordered.is_object()) fail(Fault::bad_data, "{}: not an object of adapter settings", where);
  const Json json = ordered;
  const ConfigFields fields(json, where);
  refuse_other_adapters(fields);

  AdapterConfig config;
  config.r = fields.integer("r", 1, kLargestRank, 8);
  config.alpha = fields.number("lora_alpha", 1e-9, kLargestAlpha, 8);
  config.dropout = fields.number("lora_dropout", 0, 0.999999, 0);
  config.use_rslora = fields.flag("use_rslora", false);
  if (fields.has("target_modules")) config.target_modules = names_or_text(fields, "target_modules");
  if (fields.has("exclude_modules")) config.exclude_modules = names_or_text(fields, "exclude_modules");
  if (fields.has("base_model_name_or_path")) config.base_model_name_or_path = fields.text("base_model_name_or_path");
  if (fields.has("modules_to_save")) {
    const auto modules = names_or_text(fields, "modules_to_save");
    const auto* names = std::get_if<AdapterConfig::Names>(&modules);
    config.modules_to_save = names != nullptr ? *names : AdapterConfig::Names{std::get<std::string>(modules)};
  }
  config.ensure_weight_tying = fields.flag("ensure_weight_tying", false);
  parse_layers(fields, config);
  for (const char* name : {"rank_pattern", "alpha_pattern"}) {
    if (!fields.has(name)) continue;
    const ConfigFields pattern = fields.object(name);
    for (const auto& item : ordered.at(name).items()) {
      if (name[0] == 'r') config.rank_pattern.emplace_back(item.key(), pattern.integer(item.key(), 1, kLargestRank));
      if (name[0] == 'a')
        config.alpha_pattern.emplace_back(item.key(), pattern.number(item.key(), 1e-9, kLargestAlpha));
    }
  }
  static_cast<void>(AdapterMatcher(config, where));
  return config;
}

std::string write_adapter_config(const AdapterConfig& config) {
  OrderedJson ranks = OrderedJson::object(), alphas = OrderedJson::object();
  for (const auto& [key, r] : config.rank_pattern) ranks[key] = r;
  for (const auto& [key, alpha] : config.alpha_pattern) alphas[key] = whole_or_real(alpha);
  const bool no_excludes = as_json(config.exclude_modules).empty();
  const Json targets = config.all_linear() ? Json(kSevenNames) : as_json(config.target_modules);
  const Json null = nullptr;

  OrderedJson json = OrderedJson::object();  // in the order of the keys
  json["alpha_pattern"] = alphas;
  json["auto_mapping"] = null;
  json["base_model_name_or_path"] =
      config.base_model_name_or_path.empty() ? null : Json(config.base_model_name_or_path);
  json["bias"] = "none";
  if (config.ensure_weight_tying) json["ensure_weight_tying"] = true;
  json["exclude_modules"] = no_excludes ? null : as_json(config.exclude_modules);
  json["fan_in_fan_out"] = false;
  json["inference_mode"] = true;
  json["init_lora_weights"] = true;
  json["layers_pattern"] = config.layers_pattern.empty() ? null : Json(config.layers_pattern);
  json["layers_to_transform"] = config.layers_to_transform ? Json(*config.layers_to_transform) : null;
  json["lora_alpha"] = whole_or_real(config.alpha);
  json["lora_bias"] = false;
  json["lora_dropout"] = config.dropout;
  json["modules_to_save"] = config.modules_to_save.empty() ? null : Json(config.modules_to_save);
  json["peft_type"] = "LORA";
  json["r"] = config.r;
  json["rank_pattern"] = ranks;
  json["revision"] = null;
  json["target_modules"] = targets;
  json["task_type"] = "CAUSAL_LM";
  json["use_dora"] = false;
  json["use_rslora"] = config.use_rslora;
  return json.dump(2);
}

}  // namespace drover
