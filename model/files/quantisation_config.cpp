#include "model/files/quantisation_config.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "model/files/config_fields.h"

namespace drover {

namespace {

constexpr int64_t kLargestBlock = 1 << 24;
constexpr size_t kPatternLimit = 10'000;
constexpr const char* kInstead = "fetch the model in 16 bits instead (the repository it was made from)";
constexpr const char* kMethods =
    "bitsandbytes (NF4), fbgemm_fp8, fp8, compressed-tensors (float-quantized) and modelopt (FP8)";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && std::isalnum(byte) == 0) out += '\\';
    out += c;
  }
  return out;
}

std::vector<std::string> texts(const ConfigFields& fields, const std::string& name) {
  std::vector<std::string> all;
  const Json* list = fields.find(name);
  if (list == nullptr) return all;
  const bool good = list->is_array() && list->size() <= kPatternLimit &&
                    std::ranges::all_of(*list, [](const Json& value) { return value.is_string(); });
  if (!good) {
    fail(Fault::bad_data, "{} is {}; allowed is a list of at most {} modules' names", fields.place(name),
         clipped(list->dump(-1, ' ', false, Json::error_handler_t::replace)), kPatternLimit);
  }
  for (const Json& value : *list) all.push_back(value.get<std::string>());
  return all;
}

void allow(const ConfigFields& fields, const std::string& name, const std::string& value, const std::string& absent) {
  const std::string found = fields.has(name) ? fields.text(name) : absent;
  if (found == value) return;
  fail(Fault::bad_data, "{} is \"{}\"; allowed is \"{}\": {}", fields.place(name), clipped(found), value, kInstead);
}

// Says something in the list or object, which is read as nothing where it is empty.
bool says(const ConfigFields& fields, const std::string& name) {
  const Json* value = fields.find(name);
  return value != nullptr && !(value->is_structured() && value->empty());
}

std::optional<ScaleBlocks> block_size(const ConfigFields& fields, const std::string& name) {
  const Json* value = fields.find(name);
  if (value == nullptr) return std::nullopt;
  const auto good = [](const Json& n) {
    return n.is_number_integer() && n.get<double>() >= 1 && n.get<double>() <= static_cast<double>(kLargestBlock);
  };
  if (!value->is_array() || value->size() != 2 || !good((*value)[0]) || !good((*value)[1])) {
    fail(Fault::bad_data, "{} is {}; allowed is [rows, columns] of a block, each from 1 to {}", fields.place(name),
         clipped(value->dump(-1, ' ', false, Json::error_handler_t::replace)), kLargestBlock);
  }
  return ScaleBlocks{(*value)[0].get<int64_t>(), (*value)[1].get<int64_t>()};
}

void keep_parts(const ConfigFields& fields, const std::string& name, QuantisationConfig& config) {
  for (const std::string& module : texts(fields, name))
    config.kept.push_back(ModulePattern::part(module, fields.place(name)));
}

void parse_bitsandbytes(const ConfigFields& fields) {
  if (fields.flag("load_in_8bit", false)) {
    fail(Fault::bad_data, "{} is true (LLM.int8); allowed is NF4, load_in_4bit with bnb_4bit_quant_type \"nf4\": {}",
         fields.place("load_in_8bit"), kInstead);
  }
  if (!fields.flag("load_in_4bit", false)) {
    fail(Fault::bad_data, "{} is not true; of bitsandbytes NF4 alone is read: {}", fields.place("load_in_4bit"),
         kInstead);
  }
  allow(fields, "bnb_4bit_quant_type", "nf4", "fp4");  // the default of transformers
}

void parse_fbgemm(const ConfigFields& fields, QuantisationConfig& config) {
  config.groups = {{{ModulePattern::everything(fields.place(""))}, ScaleBlocks{1, 0}}};
  config.largest_input = static_cast<float>(fields.number("activation_scale_ub", 1e-3, 1e30, 0));
  keep_parts(fields, "modules_to_not_convert", config);
}

// As DeepSeek and transformers write it; and as AutoFP8 does, with one scale for each tensor.
void parse_fp8(const Json& json, const ConfigFields& fields, QuantisationConfig& config) {
  for (const char* name : {"fmt", "weight_format"}) {
    if (fields.has(name)) allow(fields, name, "e4m3", "e4m3");
  }
  if (fields.has("scale_fmt") && fields.text("scale_fmt") != "float") allow(fields, "scale_fmt", "float", "float");
  std::optional<ScaleBlocks> blocks = block_size(fields, "weight_block_size");
  const auto stated = json.find("weight_block_size");
  if (stated != json.end() && stated->is_null()) blocks = ScaleBlocks{0, 0};
  config.groups = {{{ModulePattern::everything(fields.place(""))}, blocks}};
  keep_parts(fields, "modules_to_not_convert", config);
  keep_parts(fields, "ignored_layers", config);
}

// A target of compressed-tensors: a class of modules, "re:" and an expression, or a path.
ModulePattern target(const std::string& text, const std::string& where) {
  if (text == "Linear") return ModulePattern::everything(where);
  if (text.starts_with("re:")) return ModulePattern::regex(text.substr(3), where);
  return ModulePattern::exactly(text, where);
}

ScaleBlocks blocks_of_strategy(const ConfigFields& weights) {
  const std::string strategy = weights.has("strategy") ? weights.text("strategy") : "tensor";
  if (strategy == "tensor") return {0, 0};
  if (strategy == "channel") return {1, 0};
  if (strategy != "block") {
    fail(Fault::bad_data, "{} is \"{}\"; allowed are tensor, channel and block: {}", weights.place("strategy"),
         clipped(strategy), kInstead);
  }
  const auto blocks = block_size(weights, "block_structure");
  if (blocks) return *blocks;
  fail(Fault::bad_data, "{} is missing; allowed is [rows, columns] of a block", weights.place("block_structure"));
}

void check_e4m3(const ConfigFields& weights) {
  const int64_t bits = weights.integer("num_bits", 1, 64, 8);
  const std::string type = weights.has("type") ? weights.text("type") : "int";
  if (bits == 8 && type == "float") return;
  fail(Fault::bad_data, "{} is {} bits of \"{}\"; allowed are 8 bits of \"float\": {}", weights.place("num_bits"), bits,
       clipped(type), kInstead);
}

void parse_group(const ConfigFields& group, QuantisationConfig& config) {
  if (!group.has("weights")) return;  // activations alone
  const ConfigFields weights = group.object("weights");
  if (group.has("format")) allow(group, "format", "float-quantized", "");
  check_e4m3(weights);
  if (!weights.flag("symmetric", true)) {
    fail(Fault::bad_data, "{} is false; allowed is true: {}", weights.place("symmetric"), kInstead);
  }
  weights.allow_false("dynamic");
  QuantisationConfig::Group read{.blocks = blocks_of_strategy(weights)};
  for (const std::string& text : texts(group, "targets")) read.modules.push_back(target(text, group.place("targets")));
  config.groups.push_back(std::move(read));
}

void parse_compressed(const ConfigFields& fields, QuantisationConfig& config) {
  allow(fields, "format", "float-quantized", "");
  for (const char* name : {"sparsity_config", "transform_config"}) {
    if (!says(fields, name)) continue;
    const Json* value = fields.find(name);
    const bool dense = value->is_object() && value->contains("format") && (*value)["format"] == "dense";
    if (!dense) {
      fail(Fault::bad_data, "{} is set; sparse and transformed weights are not read: {}", fields.place(name), kInstead);
    }
  }
  const ConfigFields groups = fields.object("config_groups");
  const Json* all = fields.find("config_groups");
  if (all->size() > kPatternLimit)
    fail(Fault::bad_data, "{} has more than {} groups", fields.place("config_groups"), kPatternLimit);
  for (const auto& [name, group] : groups.items()) parse_group(groups.object(name), config);
  for (const std::string& text : texts(fields, "ignore")) config.kept.push_back(target(text, fields.place("ignore")));
}

void parse_modelopt_fields(const ConfigFields& fields, QuantisationConfig& config) {
  allow(fields, "quant_algo", "FP8", "");
  config.method = QuantMethod::modelopt;
  config.groups = {{{ModulePattern::everything(fields.place(""))}, ScaleBlocks{0, 0}}};
  for (const char* name : {"exclude_modules", "ignore"}) {
    for (const std::string& module : texts(fields, name))
      config.kept.push_back(ModulePattern::wildcard(module, fields.place(name)));
  }
}

std::string method_of(const ConfigFields& fields) {
  if (fields.has("quant_method")) return fields.text("quant_method");
  if (fields.has("load_in_4bit") || fields.has("load_in_8bit")) return "bitsandbytes";  // as older files say it
  if (fields.has("config_groups")) return "compressed-tensors";
  fail(Fault::bad_data, "{} is missing; allowed are {}", fields.place("quant_method"), kMethods);
}

}  // namespace

ModulePattern ModulePattern::everything(const std::string& where) { return {"", false, where}; }

ModulePattern ModulePattern::exactly(const std::string& path, const std::string& where) {
  return {escaped(path), true, where};
}

ModulePattern ModulePattern::part(const std::string& components, const std::string& where) {
  return {"(?:.*\\.)?" + escaped(components) + "(?:\\..*)?", true, where};
}

ModulePattern ModulePattern::wildcard(const std::string& text, const std::string& where) {
  std::string expression;
  for (const char c : text) expression += c == '*' ? ".*" : c == '?' ? "." : escaped(std::string(1, c));
  return {expression, true, where};
}

ModulePattern ModulePattern::regex(const std::string& expression, const std::string& where) {
  return {expression, false, where};
}

bool QuantisationConfig::keeps(const std::string& module) const {
  return std::ranges::any_of(kept, [&](const ModulePattern& pattern) { return pattern.matches(module); });
}

const QuantisationConfig::Group* QuantisationConfig::group_of(const std::string& module) const {
  if (keeps(module)) return nullptr;
  for (const Group& group : groups) {
    if (std::ranges::any_of(group.modules, [&](const ModulePattern& pattern) { return pattern.matches(module); }))
      return &group;
  }
  return nullptr;
}

std::optional<QuantisationConfig> parse_quantisation(const Json& config, const std::string& where) {
  const ConfigFields whole(config, where);
  const char* name = whole.has("quantization_config") ? "quantization_config" : "compression_config";
  if (!says(whole, name)) return std::nullopt;
  const ConfigFields fields = whole.object(name);
  const std::string method = method_of(fields);
  QuantisationConfig read{.place = fmt::format("{}: {}", where, name)};
  if (method == "bitsandbytes") {
    read.method = QuantMethod::bitsandbytes;
    parse_bitsandbytes(fields);
  } else if (method == "fbgemm_fp8") {
    read.method = QuantMethod::fbgemm_fp8;
    parse_fbgemm(fields, read);
  } else if (method == "fp8") {
    parse_fp8(config.at(name), fields, read);
  } else if (method == "compressed-tensors") {
    read.method = QuantMethod::compressed_tensors;
    parse_compressed(fields, read);
  } else if (method == "modelopt") {
    parse_modelopt_fields(fields.has("quantization") ? fields.object("quantization") : fields, read);
  } else {
    fail(Fault::bad_data, "{} is \"{}\"; allowed are {}: {}", fields.place("quant_method"), clipped(method), kMethods,
         kInstead);
  }
  return read;
}

QuantisationConfig parse_modelopt(const Json& json, const std::string& where) {
  if (!json.is_object()) fail(Fault::bad_data, "{}: holds {} where an object is expected", where, type_name(json));
  QuantisationConfig read{.place = where + ": quantization"};
  parse_modelopt_fields(ConfigFields(json, where).object("quantization"), read);
  return read;
}

std::optional<QuantisationConfig> read_quantisation(const fs::path& directory) {
  constexpr size_t kLimit = size_t{4} << 20;
  const fs::path config = directory / "config.json", older = directory / "hf_quant_config.json";
  auto read = parse_quantisation(parse_json(read_text(config, kLimit), config.string()), config.string());
  std::error_code ignored;
  if (read || !fs::exists(older, ignored)) return read;
  return parse_modelopt(parse_json(read_text(older, kLimit), older.string()), older.string());
}

bool is_quantisation_data(const std::string& tensor) {
  constexpr std::array kEnds = {".weight_scale",
                                ".weight_scale_inv",
                                ".weight.absmax",
                                ".weight.quant_map",
                                ".weight.nested_absmax",
                                ".weight.nested_quant_map",
                                ".input_scale",
                                ".input_scale_ub",
                                ".output_scale",
                                ".activation_scale",
                                ".k_scale",
                                ".v_scale",
                                ".q_scale",
                                ".kv_scale",
                                ".activation_scale_ub",
                                ".weight.quant_state.bitsandbytes__nf4"};
  return std::ranges::any_of(kEnds, [&](const char* end) { return tensor.ends_with(end); });
}

}  // namespace drover
