// config.json ↔ ModelConfig. Fields are those of transformers' LlamaConfig; absent ones take its defaults.
#include "model/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/base/error.h"
#include "kernels/base/json.h"
#include "model/files/config_fields.h"
#include "model/files/quantisation_config.h"

namespace drover {

namespace {

constexpr int64_t kWidestHeads = 1 << 24;  // H·E; with it no count of parameters or bytes overflows

// Llama 3's rope fields, in rope_scaling or rope_parameters.
RopeScaling parse_llama3(const ConfigFields& rope) {
  RopeScaling scaling;
  scaling.factor = rope.number("factor", 1, 1e6);
  scaling.low_freq_factor = rope.number("low_freq_factor", 1e-6, 1e6);
  scaling.high_freq_factor = rope.number("high_freq_factor", 1e-6, 1e6);
  scaling.original_max_positions = rope.integer("original_max_position_embeddings", 1, int64_t{1} << 31);
  if (scaling.low_freq_factor >= scaling.high_freq_factor) {
    fail(Fault::bad_data, "{} is {} but must be larger than low_freq_factor, {}", rope.place("high_freq_factor"),
         scaling.high_freq_factor, scaling.low_freq_factor);
  }
  return scaling;
}

// One rope object. Whatever else it says would change the frequencies.
std::optional<RopeScaling> parse_rope(const ConfigFields& rope) {
  rope.only({"rope_type", "type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor",
             "original_max_position_embeddings", "partial_rotary_factor", "attention_factor"});
  rope.allow_number("partial_rotary_factor", 1);
  rope.allow_number("attention_factor", 1);
  const std::string type = rope.has("rope_type") ? rope.text("rope_type")
                           : rope.has("type")    ? rope.text("type")
                                                 : "default";
  if (rope.has("rope_type") && rope.has("type") && rope.text("type") != type) {
    fail(Fault::bad_data, "{} says \"{}\" and {} says \"{}\"; they must agree", rope.place("rope_type"), type,
         rope.place("type"), rope.text("type"));
  }
  if (type == "llama3") return parse_llama3(rope);
  if (type != "default") {
    fail(Fault::bad_data, "{} is \"{}\"; allowed are llama3 and default",
         rope.place(rope.has("rope_type") ? "rope_type" : "type"), clipped(type));
  }
  return std::nullopt;
}

void parse_positions(const ConfigFields& fields, ModelConfig& config) {
  const bool old_spelling = fields.has("rope_scaling"), new_spelling = fields.has("rope_parameters");
  if (fields.has("rope_theta")) config.rope_theta = fields.number("rope_theta", 1, 1e12);
  if (old_spelling) config.rope_scaling = parse_rope(fields.object("rope_scaling"));
  if (new_spelling) {
    const ConfigFields rope = fields.object("rope_parameters");
    const auto scaling = parse_rope(rope);
    if (old_spelling && scaling != config.rope_scaling) {
      fail(Fault::bad_data, "{} and rope_scaling disagree; keep one of them", fields.place("rope_parameters"));
    }
    config.rope_scaling = scaling;
    if (rope.has("rope_theta")) {
      const double theta = rope.number("rope_theta", 1, 1e12);
      if (fields.has("rope_theta") && theta != config.rope_theta) {
        fail(Fault::bad_data, "{} is {} but rope_theta is {}; they must agree", rope.place("rope_theta"), theta,
             config.rope_theta);
      }
      config.rope_theta = theta;
    }
  }
  config.max_positions = fields.integer("max_position_embeddings", 1, int64_t{1} << 31, 2048);
}

void parse_sizes(const ConfigFields& fields, ModelConfig& config) {
  config.hidden = fields.integer("hidden_size", 1, 1 << 20);
  config.layers = fields.integer("num_hidden_layers", 1, 10'000);
  config.heads = fields.integer("num_attention_heads", 1, 1 << 16);
  config.kv_heads = fields.integer("num_key_value_heads", 1, 1 << 16, config.heads);
  config.ffn = fields.integer("intermediate_size", 1, 1 << 24);
  config.vocab = fields.integer("vocab_size", 1, 1 << 24);
  config.norm_eps = fields.number("rms_norm_eps", 0, 1, 1e-6);
  if (config.heads % config.kv_heads != 0) {
    fail(Fault::bad_data, "{} is {}; it must divide num_attention_heads, {}", fields.place("num_key_value_heads"),
         config.kv_heads, config.heads);
  }
  if (!fields.has("head_dim") && config.hidden % config.heads != 0) {
    fail(Fault::bad_data, "{} is {} and does not divide by num_attention_heads, {}; without head_dim it must",
         fields.place("hidden_size"), config.hidden, config.heads);
  }
  config.head_dim = fields.integer("head_dim", 2, 1 << 16, config.hidden / config.heads);
  if (config.head_dim % 2 != 0)
    fail(Fault::bad_data, "{} is {}; rotary positions need an even one", fields.place("head_dim"), config.head_dim);
  if (config.heads * config.head_dim > kWidestHeads) {
    fail(Fault::bad_data, "{} is {}; times num_attention_heads, {}, it may be {} at most", fields.place("head_dim"),
         config.head_dim, config.heads, kWidestHeads);
  }
  if (config.layers == 126 && config.hidden == 16384 && config.heads == 128 && config.kv_heads == 16) {
    fail(Fault::bad_data,
         "{} is 16 where Llama 3.1 405B has 8: this is the first upload of 405B, whose keys and values are stored "
         "twice; fetch the later one, "
         "with num_key_value_heads 8",
         fields.place("num_key_value_heads"));
  }
}

// Adds those of a file's eos_token_id that are not there yet.
void parse_eos(const ConfigFields& fields, ModelConfig& config) {
  const Json* eos = fields.find("eos_token_id");
  if (eos == nullptr) return;
  const std::string what = fmt::format("{} must be an id below vocab_size, {}, or a list of such",
                                       fields.place("eos_token_id"), config.vocab);
  const auto add = [&](const Json& id) {
    if (!id.is_number_integer() || id.get<double>() < 0 || id.get<double>() >= static_cast<double>(config.vocab))
      fail(Fault::bad_data, "{}", what);
    const auto token = id.get<int32_t>();
    if (std::ranges::find(config.eos, token) == config.eos.end()) config.eos.push_back(token);
  };
  if (eos->is_array()) {
    if (eos->size() > 1000) fail(Fault::bad_data, "{}", what);
    for (const Json& id : *eos) add(id);
  } else {
    add(*eos);
  }
}

void parse_tokens(const ConfigFields& fields, ModelConfig& config) {
  config.bos = static_cast<int32_t>(fields.integer("bos_token_id", -1, config.vocab - 1, -1));
  parse_eos(fields, config);
}

// Fields of Llama's relatives that change the arithmetic: only their neutral value is allowed.
void refuse_other_arithmetic(const ConfigFields& fields) {
  fields.allow_text("model_type", "llama");
  if (const Json* names = fields.find("architectures")) {
    if (!names->is_array() || names->size() != 1 || (*names)[0] != "LlamaForCausalLM") {
      fail(Fault::bad_data, "{} is {}; allowed is [\"LlamaForCausalLM\"]", fields.place("architectures"),
           clipped(names->dump()));
    }
  }
  if (!fields.has("model_type") && !fields.has("architectures")) {
    fail(Fault::bad_data, "{} is missing; allowed is \"llama\"", fields.place("model_type"));
  }
  for (const char* name : {"hidden_act", "hidden_activation"}) fields.allow_text(name, "silu");
  for (const char* name :
       {"attention_bias", "mlp_bias", "rope_interleaved", "use_qk_norm", "qk_norm", "use_sliding_window",
        "add_cross_attention", "is_encoder_decoder", "alibi", "use_bias", "qkv_bias"}) {
    fields.allow_false(name);
  }
  if (!fields.says_false("use_sliding_window")) fields.allow_null("sliding_window");
  for (const char* name :
       {"auto_map", "attn_logit_softcapping", "final_logit_softcapping", "num_local_experts", "num_experts",
        "no_rope_layers", "query_pre_attn_scalar", "attention_chunk_size", "text_config"}) {
    fields.allow_null(name);
  }
  for (const char* name : {"pretraining_tp", "partial_rotary_factor", "logits_scaling", "logit_scale",
                           "embedding_multiplier", "attention_multiplier", "residual_multiplier"}) {
    fields.allow_number(name, 1);
  }
  for (const char* name : {"attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop"})
    fields.allow_number(name, 0);
  if (const Json* types = fields.find("layer_types")) {
    for (const Json& type : *types) {
      if (type != "full_attention") {
        fail(Fault::bad_data, "{} holds {}; allowed is \"full_attention\" everywhere", fields.place("layer_types"),
             clipped(type.dump()));
      }
    }
  }
}

}  // namespace

ModelConfig parse_model_config(const std::string& json_text, const std::string& where) {
  const Json json = parse_json(json_text, where);
  if (!json.is_object())
    fail(Fault::bad_data, "{}: holds {} where an object of model settings is expected", where, type_name(json));
  const ConfigFields fields(json, where);
  refuse_other_arithmetic(fields);
  (void)parse_quantisation(json, where);  // refuses layouts that are not read
  ModelConfig config;
  parse_sizes(fields, config);
  parse_positions(fields, config);
  parse_tokens(fields, config);
  config.tied_head = fields.flag("tie_word_embeddings", false);
  const char* dtype = fields.has("dtype") ? "dtype" : "torch_dtype";
  if (fields.has(dtype)) config.storage_dtype = fields.text(dtype);
  if (config.storage_dtype != "bfloat16" && config.storage_dtype != "float16" && config.storage_dtype != "float32") {
    fail(Fault::bad_data, "{} is \"{}\"; allowed are bfloat16, float16 and float32", fields.place(dtype),
         clipped(config.storage_dtype));
  }
  return config;
}

ModelConfig read_model_config(const fs::path& directory) {
  const fs::path path = directory / "config.json";
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    fail(Fault::missing_input,
         "no {}; a model is a Hugging Face directory with config.json, tokenizer.json and *.safetensors",
         path.string());
  }
  ModelConfig config = parse_model_config(read_text(path, size_t{4} << 20), path.string());
  add_stop_ids(directory, config);
  return config;
}

void add_stop_ids(const fs::path& directory, ModelConfig& config) {
  const fs::path generation = directory / "generation_config.json";
  std::error_code ignored;
  if (!fs::exists(generation, ignored)) return;
  const Json json = parse_json(read_text(generation, size_t{4} << 20), generation.string());
  if (!json.is_object())
    fail(Fault::bad_data, "{}: holds {} where an object is expected", generation.string(), type_name(json));
  parse_eos(ConfigFields(json, generation.string()), config);
}

std::string write_model_config(const ModelConfig& config) {
  Json json = {
      {"architectures", {"LlamaForCausalLM"}},
      {"attention_bias", false},
      {"attention_dropout", 0.0},
      {"bos_token_id", nullptr},
      {"eos_token_id", nullptr},
      {"head_dim", config.head_dim},
      {"hidden_act", "silu"},
      {"hidden_size", config.hidden},
      {"initializer_range", 0.02},
      {"intermediate_size", config.ffn},
      {"max_position_embeddings", config.max_positions},
      {"mlp_bias", false},
      {"model_type", "llama"},
      {"num_attention_heads", config.heads},
      {"num_hidden_layers", config.layers},
      {"num_key_value_heads", config.kv_heads},
      {"pretraining_tp", 1},
      {"rms_norm_eps", config.norm_eps},
      {"rope_scaling", nullptr},
      {"rope_theta", config.rope_theta},
      {"tie_word_embeddings", config.tied_head},
      {"torch_dtype", config.storage_dtype},
      {"use_cache", true},
      {"vocab_size", config.vocab},
  };
  if (config.bos >= 0) json["bos_token_id"] = config.bos;
  if (config.eos.size() == 1) json["eos_token_id"] = config.eos[0];
  if (config.eos.size() > 1) json["eos_token_id"] = config.eos;
  if (const auto& scaling = config.rope_scaling) {
    json["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", scaling->factor},
                            {"low_freq_factor", scaling->low_freq_factor},
                            {"high_freq_factor", scaling->high_freq_factor},
                            {"original_max_position_embeddings", scaling->original_max_positions}};
  }
  return json.dump(2) + "\n";
}

}  // namespace drover
