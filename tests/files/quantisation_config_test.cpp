// quantization_config of config.json: what is read, and every layout that is refused by its name.
#include "model/files/quantisation_config.h"

#include <gtest/gtest.h>

#include "model/files/nf4_state.h"
#include "tests/files/quantised_files.h"

namespace drover {
namespace {

std::optional<QuantisationConfig> parsed(const std::string& quantisation) {
  return parse_quantisation(parse_json("{\"quantization_config\": " + quantisation + "}", "c.json"), "c.json");
}

void expect_refused(const std::string& quantisation, std::vector<std::string> words) {
  words.emplace_back("c.json: quantization_config");
  expect_error(Fault::bad_data, words, [&] { parsed(quantisation); });
}

std::string compressed(const std::string& more) {
  Json json = parse_json(R"({"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
    "config_groups": {"group_0": {"targets": ["Linear"], "weights":
      {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": true, "dynamic": false}}}})",
                         "test");
  json.merge_patch(parse_json(more, "test"));
  return json.dump();
}

std::string group(const std::string& weights) {
  return compressed("{\"config_groups\": {\"group_0\": {\"weights\": " + weights + "}}}");
}

TEST(QuantisationConfig, NothingIsSaid) {
  EXPECT_FALSE(parse_quantisation(parse_json("{}", "c.json"), "c.json"));
  EXPECT_FALSE(parsed("null"));
  EXPECT_FALSE(parsed("{}"));
}

TEST(QuantisationConfig, EveryLayoutThatIsRead) {
  EXPECT_TRUE(
      parsed(R"({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"})")->is_nf4());
  EXPECT_TRUE(parsed(R"({"load_in_4bit": true, "load_in_8bit": false, "bnb_4bit_quant_type": "nf4"})")->is_nf4());
  const std::string q = "model.layers.0.self_attn.q_proj";
  EXPECT_EQ(parsed(R"({"quant_method": "fbgemm_fp8"})")->group_of(q)->blocks, (ScaleBlocks{1, 0}));
  EXPECT_EQ(parsed(R"({"quant_method": "fp8", "weight_block_size": [64, 32]})")->group_of(q)->blocks,
            (ScaleBlocks{64, 32}));
  EXPECT_EQ(parsed(R"({"quant_method": "fp8", "weight_block_size": null})")->group_of(q)->blocks, (ScaleBlocks{0, 0}));
  EXPECT_FALSE(parsed(R"({"quant_method": "fp8"})")->group_of(q)->blocks);
  EXPECT_EQ(parsed(compressed("{}"))->group_of(q)->blocks, (ScaleBlocks{1, 0}));
  EXPECT_EQ(parsed(group(R"({"strategy": "block", "block_structure": [128, 64]})"))->group_of(q)->blocks,
            (ScaleBlocks{128, 64}));
  EXPECT_EQ(parsed(group(R"({"strategy": "tensor"})"))->group_of(q)->blocks, (ScaleBlocks{0, 0}));
  EXPECT_EQ(parsed(R"({"quant_method": "modelopt", "quant_algo": "FP8"})")->group_of(q)->blocks, (ScaleBlocks{0, 0}));
  EXPECT_EQ(parsed(R"({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8"}})")->group_of(q)->blocks,
            (ScaleBlocks{0, 0}));
}

TEST(QuantisationConfig, TheBoundOfFbgemmsInputs) {
  EXPECT_EQ(parsed(R"({"quant_method": "fbgemm_fp8"})")->largest_input, 0);
  EXPECT_EQ(parsed(R"({"quant_method": "fbgemm_fp8", "activation_scale_ub": null})")->largest_input, 0);
  EXPECT_EQ(parsed(R"({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0})")->largest_input, 1200);
  expect_refused(R"({"quant_method": "fbgemm_fp8", "activation_scale_ub": -1})", {"activation_scale_ub", "-1"});
}

TEST(QuantisationConfig, ModulesByTheWritersOwnRules) {
  const auto fbgemm = *parsed(R"({"quant_method": "fbgemm_fp8", "modules_to_not_convert":
    ["lm_head", "model.layers.1", "layers.2.self_attn"]})");
  EXPECT_TRUE(fbgemm.keeps("lm_head"));
  EXPECT_TRUE(fbgemm.keeps("model.layers.1.mlp.up_proj"));
  EXPECT_FALSE(fbgemm.keeps("model.layers.11.mlp.up_proj"));
  EXPECT_TRUE(fbgemm.keeps("model.layers.2.self_attn.q_proj"));
  EXPECT_FALSE(fbgemm.keeps("model.layers.2.mlp.up_proj"));
  EXPECT_EQ(fbgemm.group_of("lm_head"), nullptr);

  const auto groups = *parsed(compressed(R"({"ignore": ["re:.*o_proj$"], "config_groups": {
    "group_0": {"targets": ["re:.*self_attn.*"]},
    "group_1": {"targets": ["model.layers.0.mlp.up_proj"], "weights": {"num_bits": 8, "type": "float"}}}})"));
  EXPECT_EQ(groups.group_of("model.layers.0.self_attn.q_proj")->blocks, (ScaleBlocks{1, 0}));
  EXPECT_EQ(groups.group_of("model.layers.0.self_attn.o_proj"), nullptr);
  EXPECT_EQ(groups.group_of("model.layers.0.mlp.up_proj")->blocks, (ScaleBlocks{0, 0}));
  EXPECT_EQ(groups.group_of("model.layers.10.mlp.up_proj"), nullptr);

  const auto modelopt = *parsed(
      R"({"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["lm_head", "model.layers.0.self?attn*"]})");
  EXPECT_TRUE(modelopt.keeps("model.layers.0.self_attn.k_proj"));
  EXPECT_FALSE(modelopt.keeps("model.layers.0.mlp.up_proj"));
  EXPECT_FALSE(modelopt.keeps("modelXlayers.0.self_attn.k_proj"));
}

TEST(QuantisationConfig, OtherMethodsAreRefusedByName) {
  for (const char* method : {"gptq", "awq", "mxfp4", "hqq", "aqlm", "eetq", "quanto", "torchao", "quark", "higgs"}) {
    expect_refused(fmt::format(R"({{"quant_method": "{}", "bits": 4}})", method),
                   {method, "allowed are bitsandbytes (NF4)", "16 bits"});
  }
  expect_refused(R"({"bits": 4})", {"quant_method is missing"});
  expect_refused(R"({"quant_method": 4})", {"quant_method is 4"});
  expect_refused("[1]", {"[1]", "an object"});
  expect_error(Fault::bad_data, {"c.json: compression_config.quant_method", "awq"}, [] {
    parse_quantisation(parse_json(R"({"compression_config": {"quant_method": "awq"}})", "c.json"), "c.json");
  });
}

TEST(QuantisationConfig, OtherFormatsOfAMethodAreRefusedByName) {
  expect_refused(R"({"quant_method": "bitsandbytes", "load_in_8bit": true})", {"load_in_8bit", "LLM.int8", "16 bits"});
  expect_refused(R"({"quant_method": "bitsandbytes"})", {"load_in_4bit is not true"});
  expect_refused(R"({"load_in_4bit": true, "bnb_4bit_quant_type": "fp4"})", {"bnb_4bit_quant_type", "fp4", "nf4"});
  expect_refused(R"({"load_in_4bit": true})", {"bnb_4bit_quant_type", "fp4"});
  expect_refused(R"({"quant_method": "fp8", "weight_block_size": [128]})", {"weight_block_size is [128]"});
  expect_refused(R"({"quant_method": "fp8", "weight_block_size": [128, 0]})", {"weight_block_size is [128,0]"});
  expect_refused(R"({"quant_method": "fp8", "weight_block_size": [128, 1e30]})", {"weight_block_size"});
  expect_refused(R"({"quant_method": "fp8", "weight_block_size": 128})", {"weight_block_size is 128"});
  expect_refused(R"({"quant_method": "fp8", "fmt": "e5m2"})", {"fmt", "e5m2"});
  expect_refused(R"({"quant_method": "fp8", "scale_fmt": "ue8m0"})", {"scale_fmt", "ue8m0"});
  expect_refused(R"({"quant_method": "fp8", "modules_to_not_convert": "lm_head"})", {"modules_to_not_convert", "list"});
  expect_refused(R"({"quant_method": "fp8", "ignored_layers": [7]})", {"ignored_layers", "list"});
  for (const char* format : {"int-quantized", "pack-quantized", "naive-quantized", "nvfp4-pack-quantized", "marlin-24",
                             "mixed-precision", "dense", "mxfp8-quantized"})
    expect_refused(compressed(fmt::format(R"({{"format": "{}"}})", format)), {"format", format, "float-quantized"});
  expect_refused(compressed(R"({"config_groups": {"group_0": {"format": "pack-quantized"}}})"),
                 {"group_0.format", "pack-quantized"});
  expect_refused(group(R"({"num_bits": 4})"), {"weights.num_bits is 4 bits of \"float\""});
  expect_refused(group(R"({"type": "int"})"), {"8 bits of \"int\""});
  expect_refused(group(R"({"strategy": "group"})"), {"strategy is \"group\"", "channel"});
  expect_refused(group(R"({"strategy": "block"})"), {"block_structure is missing"});
  expect_refused(group(R"({"symmetric": false})"), {"symmetric is false"});
  expect_refused(group(R"({"dynamic": true})"), {"dynamic is true"});
  expect_refused(compressed(R"({"config_groups": null})"), {"config_groups is missing"});
  expect_refused(compressed(R"({"ignore": ["re:("]})"), {"not a regular expression"});
  expect_refused(compressed(R"({"sparsity_config": {"format": "sparse-24-bitmask"}})"), {"sparsity_config is set"});
  expect_refused(compressed(R"({"transform_config": {"config_groups": {"R1": {}}}})"), {"transform_config is set"});
  EXPECT_TRUE(parsed(compressed(R"({"sparsity_config": {"format": "dense"}, "transform_config": {}})")));
  for (const char* algorithm : {"NVFP4", "W4A8_AWQ", "FP8_PER_CHANNEL_PER_TOKEN", "MIXED_PRECISION"}) {
    expect_refused(fmt::format(R"({{"quant_method": "modelopt", "quant_algo": "{}"}})", algorithm),
                   {"quant_algo", algorithm, "FP8"});
  }
  expect_refused(R"({"quant_method": "modelopt"})", {"quant_algo"});
}

TEST(QuantisationConfig, ModelOptsOwnFile) {
  ChangedDirectory changed("modelopt");
  changed.older = R"({"quantization": {"quant_algo": "NVFP4"}})";
  expect_error(Fault::bad_data, {"hf_quant_config.json: quantization.quant_algo", "NVFP4"},
               [&] { ModelDirectory model(changed.written()); });
  changed.older = "[]";
  expect_error(Fault::bad_data, {"hf_quant_config.json", "an object"},
               [&] { ModelDirectory model(changed.written()); });
  changed.older = "{}";
  expect_error(Fault::bad_data, {"quantization is missing"}, [&] { ModelDirectory model(changed.written()); });
}

std::string state(const std::string& patch) {
  Json json = parse_json(R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [320, 192],
    "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 2.5})",
                         "test");
  json.merge_patch(parse_json(patch, "test"));
  return json.dump();
}

TEST(Nf4State, IsReadStrictly) {
  const Nf4State read = parse_nf4_state(state("{}"), "s");
  EXPECT_EQ(read.rows, 320);
  EXPECT_EQ(read.cols, 192);
  EXPECT_EQ(read.offset, 2.5f);
  EXPECT_TRUE(read.nested);
  EXPECT_EQ(read.rounding, Rounding::bf16);
  EXPECT_EQ(parse_nf4_state(state(R"({"dtype": "float16"})"), "s").rounding, Rounding::f16);
  EXPECT_EQ(parse_nf4_state(state(R"({"dtype": "float32"})"), "s").rounding, Rounding::none);
  EXPECT_FALSE(
      parse_nf4_state(state(R"({"nested_blocksize": null, "nested_dtype": null, "nested_offset": null})"), "s").nested);
  const std::vector<std::pair<const char*, std::vector<std::string>>> refused = {
      {R"({"quant_type": "fp4"})", {"quant_type is \"fp4\"", "nf4"}},
      {R"({"quant_type": null})", {"quant_type is missing"}},
      {R"({"blocksize": 128})", {"blocksize is 128", "64"}},
      {R"({"dtype": "int8"})", {"dtype is \"int8\"", "bfloat16"}},
      {R"({"shape": [320]})", {"shape is [320]", "[rows, columns]"}},
      {R"({"shape": null})", {"shape is missing"}},
      {R"({"shape": [320, -64]})", {"shape is [320,-64]"}},
      {R"({"shape": [320, 1e40]})", {"shape"}},
      {R"({"shape": [320, 96]})", {"[320, 96]", "multiple of 64", "one row into the next", "16 bits"}},
      {R"({"nested_blocksize": 64})", {"nested_blocksize is 64", "256"}},
      {R"({"nested_blocksize": null})", {"nested_blocksize is missing"}},
      {R"({"nested_dtype": "float16"})", {"nested_dtype"}},
      {R"({"nested_offset": "2"})", {"nested_offset"}},
      {R"({"nested_offset": 1e300})", {"nested_offset"}},
      {R"({"nested_offset": null})", {"nested_offset is missing"}},
  };
  for (const auto& [patch, words] : refused)
    expect_error(Fault::bad_data, words, [&, patch = patch] { parse_nf4_state(state(patch), "s"); });
  for (const char* text : {"", "[]", "{", "{\"a\":1,\"a\":2}"})
    expect_error(Fault::bad_data, {"s"}, [&] { parse_nf4_state(text, "s"); });
}

}  // namespace
}  // namespace drover
