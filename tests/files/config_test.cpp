#include "model/config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

// Llama 3.1 8B Instruct's file.
const char* kLlama8b =
    R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000,
  "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
  "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
  "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.43.0.dev0", "use_cache": true,
  "vocab_size": 128256})";

ModelConfig with(const std::string& patch) {
  auto json = nlohmann::json::parse(kLlama8b);
  json.merge_patch(nlohmann::json::parse(patch));
  return parse_model_config(json.dump(), "config.json");
}

void expect_refused(const std::string& patch, std::initializer_list<std::string> words) {
  expect_error(Fault::bad_data, {"config.json"}, [&] { with(patch); });
  expect_error(Fault::bad_data, words, [&] { with(patch); });
}

TEST(ModelConfig, ReadsLlamaAndWritesItBack) {
  const ModelConfig config = parse_model_config(kLlama8b, "config.json");
  EXPECT_EQ(config, *known_model("llama3.1-8b"));
  for (const std::string& name : known_model_names()) {
    const ModelConfig known = *known_model(name);
    EXPECT_EQ(parse_model_config(write_model_config(known), name), known) << name;
  }
  EXPECT_FALSE(known_model("llama-7"));
}

TEST(ModelConfig, KnowsTheHerdsSizes) {
  // As published.
  EXPECT_EQ(parameter_count(*known_model("llama3.1-8b")), 8'030'261'248);
  EXPECT_EQ(parameter_count(*known_model("llama3.1-70b")), 70'553'706'496);
  EXPECT_EQ(parameter_count(*known_model("llama3.1-405b")), 405'853'388'800);
  EXPECT_EQ(parameter_count(*known_model("llama3.2-1b")), 1'235'814'400);
  EXPECT_EQ(parameter_count(*known_model("llama3.2-3b")), 3'212'749'824);
  EXPECT_EQ(parameter_count(*known_model("smollm2-135m")), 134'515'008);
}

TEST(ModelConfig, ReadsBothRopeSpellings) {
  const ModelConfig old = parse_model_config(kLlama8b, "config.json");
  const std::string fresh =
      R"("rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192)";
  EXPECT_EQ(
      with(R"({"rope_scaling": null, "rope_theta": null, "rope_parameters": {"rope_type": "llama3", )" + fresh + "}}"),
      old);
  EXPECT_EQ(with(R"({"rope_parameters": {"rope_type": "llama3", )" + fresh + "}}"), old);
  EXPECT_FALSE(with(R"({"rope_scaling": null, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}})")
                   .rope_scaling);
  EXPECT_EQ(with(R"({"rope_scaling": {"rope_type": null, "type": "llama3"}})"), old);
  EXPECT_EQ(with(R"({"rope_scaling": {"factor": 32.0}})").rope_scaling->factor, 32);
  expect_refused(R"({"rope_parameters": {"rope_type": "default"}})", {"rope_parameters", "disagree"});
  expect_refused(R"({"rope_scaling": null, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}})",
                 {"rope_parameters.rope_theta", "agree"});
}

TEST(ModelConfig, DefaultsAreThoseOfTransformers) {
  const ModelConfig config = with(
      R"({"num_key_value_heads": null, "head_dim": null, "rope_scaling": null, "rope_theta": null, "rms_norm_eps": null,
    "tie_word_embeddings": null, "eos_token_id": 7, "bos_token_id": null, "hidden_act": null, "unknown_to_us": 3})");
  EXPECT_EQ(config.kv_heads, 32);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_EQ(config.rope_theta, 10000);
  EXPECT_EQ(config.norm_eps, 1e-6);
  EXPECT_EQ(config.eos, std::vector<int32_t>{7});
  EXPECT_EQ(config.bos, -1);
  EXPECT_EQ(with(R"({"head_dim": 64})").head_dim, 64);
  EXPECT_EQ(with(R"({"dtype": "float32"})").storage_dtype, "float32");
}

TEST(ModelConfig, RefusesWhatChangesTheArithmetic) {
  expect_refused(R"({"attention_bias": true})", {"attention_bias is true", "allowed is false"});
  expect_refused(R"({"mlp_bias": true})", {"mlp_bias"});
  expect_refused(R"({"hidden_act": "gelu"})", {"hidden_act", "gelu", "silu"});
  expect_refused(R"({"sliding_window": 4096})", {"sliding_window"});
  EXPECT_EQ(with(R"({"sliding_window": 4096, "use_sliding_window": false})").hidden, 4096);
  expect_refused(R"({"pretraining_tp": 2})", {"pretraining_tp is 2", "allowed is 1"});
  expect_refused(R"({"attention_dropout": 0.1})", {"attention_dropout"});
  expect_refused(R"({"partial_rotary_factor": 0.5})", {"partial_rotary_factor"});
  expect_refused(R"({"quantization_config": {"quant_method": "gptq"}})", {"quantization_config.quant_method", "gptq"});
  EXPECT_EQ(with(R"({"quantization_config": {"quant_method": "fbgemm_fp8"}})"), with("{}"));
  expect_refused(R"({"model_type": "mistral"})", {"model_type", "mistral", "llama"});
  expect_refused(R"({"architectures": ["LlamaForSequenceClassification"]})", {"architectures", "LlamaForCausalLM"});
  expect_refused(R"({"architectures": null, "model_type": null})", {"model_type is missing"});
  expect_refused(R"({"rope_scaling": {"rope_type": "yarn"}})", {"rope_scaling.rope_type", "yarn", "llama3"});
  expect_refused(R"({"rope_scaling": {"rope_type": null, "type": "linear"}})", {"rope_scaling.type", "linear"});
  expect_refused(R"({"rope_scaling": {"mscale": 2}})", {"rope_scaling.mscale"});
  expect_refused(R"({"rope_scaling": {"partial_rotary_factor": 0.5}})", {"rope_scaling.partial_rotary_factor"});
  expect_refused(R"({"layer_types": ["sliding_attention"]})", {"layer_types"});
  expect_refused(R"({"final_logit_softcapping": 30})", {"final_logit_softcapping"});
}

TEST(ModelConfig, RefusesImpossibleNumbers) {
  for (const char* value :
       {"0", "-1", "1e18", "1000000000000000000", "18446744073709551615", "1.5", "\"32\"", "true", "[]", "null"}) {
    expect_refused(fmt::format(R"({{"num_attention_heads": {}}})", value), {"num_attention_heads"});
    expect_refused(fmt::format(R"({{"hidden_size": {}}})", value), {"hidden_size"});
  }
  expect_refused(R"({"num_key_value_heads": 5})", {"num_key_value_heads is 5", "divide"});
  expect_refused(R"({"head_dim": 7})", {"head_dim is 7", "even"});
  expect_refused(R"({"hidden_size": 4100})", {"hidden_size is 4100", "head_dim"});
  expect_refused(R"({"eos_token_id": 128256})", {"eos_token_id", "vocab_size"});
  expect_refused(R"({"eos_token_id": [1, "2"]})", {"eos_token_id"});
  expect_refused(R"({"bos_token_id": 999999})", {"bos_token_id"});
  expect_refused(R"({"torch_dtype": "int8"})", {"torch_dtype", "bfloat16"});
  expect_refused(R"({"rope_scaling": {"factor": null}})", {"rope_scaling.factor is missing"});
  expect_refused(R"({"rope_scaling": {"factor": 0}})", {"rope_scaling.factor is 0"});
  expect_refused(R"({"rope_scaling": {"high_freq_factor": 1.0}})", {"rope_scaling.high_freq_factor"});
  expect_refused(R"({"rope_theta": -1})", {"rope_theta"});
  expect_refused(
      R"({"hidden_size": 16384, "num_hidden_layers": 126, "num_attention_heads": 128, "num_key_value_heads": 16})",
      {"num_key_value_heads is 16", "twice"});
}

TEST(ModelConfig, RefusesBadJson) {
  for (const char* text : {"", "{", "[]", "3", "{\"a\":1,\"a\":2}", "{\"\xff\":1}", "nonsense"}) {
    expect_error(Fault::bad_data, {"c.json"}, [&] { parse_model_config(text, "c.json"); });
  }
  expect_error(Fault::bad_data, {"64 levels"},
               [&] { parse_model_config("{\"a\":" + std::string(100000, '[') + "}", "c.json"); });
  expect_error(Fault::bad_data, {"\"a\" stands twice"}, [&] { parse_model_config("{\"a\":1,\"a\":2}", "c.json"); });
  ScratchDirectory dir;
  expect_error(Fault::missing_input, {"config.json"}, [&] { read_model_config(dir.path()); });
  write_text(dir / "config.json", write_model_config(*known_model("llama3.1-8b")));
  const std::vector<int32_t> own = read_model_config(dir.path()).eos;
  const auto with_generation = [&](const std::string& text) {
    write_text(dir / "generation_config.json", text);
    return read_model_config(dir.path()).eos;
  };
  std::vector<int32_t> more = own;
  more.push_back(5);
  EXPECT_EQ(with_generation(R"({"eos_token_id": [128009, 5], "temperature": 0.6})"), more);
  EXPECT_EQ(with_generation(R"({"eos_token_id": 128009})"), own);
  EXPECT_EQ(with_generation(R"({"eos_token_id": null})"), own);
  for (const char* text : {R"({"eos_token_id": 128256})", R"({"eos_token_id": "x"})", "[]", "{"})
    expect_error(Fault::bad_data, {"generation_config.json"}, [&] { with_generation(text); });
}

}  // namespace
}  // namespace drover
