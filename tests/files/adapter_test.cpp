#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "model/files/peft.h"
#include "model/files/safetensors.h"
#include "tests/base/scratch_directory.h"
#include "tests/files/made_up_files.h"

namespace drover {
namespace {

const std::string kQ = "model.layers.0.self_attn.q_proj", kDown = "model.layers.11.mlp.down_proj";

AdapterConfig parsed(const std::string& fields) {
  return parse_adapter_config(R"({"peft_type": "LORA")" + (fields.empty() ? "" : ", " + fields) + "}",
                              "adapter_config.json");
}
AdapterMatcher matcher(const std::string& fields) { return AdapterMatcher(parsed(fields)); }
bool means(const std::string& fields, const std::string& path) { return matcher(fields).match(path).has_value(); }

TEST(AdapterConfig, TargetsFollowPeft) {
  EXPECT_TRUE(means("", kQ));  // q_proj and v_proj
  EXPECT_FALSE(means("", kDown));
  EXPECT_TRUE(means(R"("target_modules": ["down_proj"])", kDown));
  EXPECT_TRUE(means(R"("target_modules": ["mlp.down_proj"])", kDown));
  EXPECT_FALSE(means(R"("target_modules": ["n_proj"])", kDown));  // a suffix begins at a dot
  EXPECT_TRUE(means(R"("target_modules": ["model.layers.0.self_attn.q_proj"])", kQ));
  EXPECT_TRUE(means(R"("target_modules": "ALL-linear")", kQ));
  EXPECT_FALSE(means(R"("target_modules": "all-linear")", "lm_head"));
  EXPECT_TRUE(means(R"("target_modules": ".*\\.(q|k)_proj")", kQ));
  EXPECT_FALSE(means(R"("target_modules": ".*self_attn")", kQ));  // fullmatch
  EXPECT_FALSE(means(R"("target_modules": "q_proj")", kQ));
  EXPECT_TRUE(means(R"("target_modules": "(?P<a>model\\.layers\\.\\d+)\\.(?=self).*(?<!x)_proj")", kQ));
  EXPECT_FALSE(means(R"("target_modules": "all-linear", "exclude_modules": ["q_proj"])", kQ));
  EXPECT_FALSE(means(R"("target_modules": "all-linear", "exclude_modules": ".*layers\\.0\\..*")", kQ));
  EXPECT_TRUE(means(R"("target_modules": "all-linear", "exclude_modules": ".*layers\\.0")", kQ));
  EXPECT_TRUE(means(R"("target_modules": ["down_proj"], "layers_to_transform": [1, 11])", kDown));
  EXPECT_FALSE(means(R"("target_modules": ["down_proj"], "layers_to_transform": 1)", kDown));
  EXPECT_TRUE(
      means(R"("target_modules": ["down_proj"], "layers_to_transform": 11, "layers_pattern": "layers")", kDown));
  EXPECT_FALSE(means(R"("target_modules": ["down_proj"], "layers_to_transform": 11, "layers_pattern": ["h"])", kDown));
}

TEST(AdapterConfig, RanksAndScalesFollowPeft) {
  const std::string base = R"("r": 16, "lora_alpha": 32, "target_modules": "all-linear")";
  EXPECT_EQ(matcher(base).match(kQ)->scale, 2);
  EXPECT_EQ(matcher(base + R"(, "use_rslora": true)").match(kQ)->scale, 8);
  // The first key that matches holds, in the file's order.
  const AdapterMatcher patterns = matcher(
      base +
      R"(, "rank_pattern": {"q_proj": 4, ".*": 2}, "alpha_pattern": {"layers.11.mlp.down_proj": 5, "down_proj": 7})");
  EXPECT_EQ(patterns.match(kQ)->r, 4);
  EXPECT_EQ(patterns.match(kQ)->scale, 8);
  EXPECT_EQ(patterns.match(kDown)->r, 2);
  EXPECT_EQ(patterns.match(kDown)->alpha, 5);
  const AdapterMatcher other = matcher(
      base +
      R"(, "rank_pattern": {".*": 2, "q_proj": 4}, "alpha_pattern": {"proj": 9, "(?:layers\\.1)?1\\.mlp\\..*": 3})");
  EXPECT_EQ(other.match(kQ)->r, 2);
  EXPECT_EQ(other.match(kQ)->alpha, 32);    // "proj" is no whole segment
  EXPECT_EQ(other.match(kDown)->alpha, 3);  // match, then $
}

TEST(AdapterConfig, NamesTheHeadAndTheEmbeddingWhereTheyAreMeant) {
  EXPECT_TRUE(means(R"("target_modules": ["lm_head"])", "lm_head"));
  EXPECT_TRUE(means(R"("target_modules": ".*")", "lm_head"));
  EXPECT_TRUE(means(R"("target_modules": ["embed_tokens"])", "model.embed_tokens"));
  EXPECT_FALSE(means(R"("target_modules": "all-linear")", "model.embed_tokens"));
  EXPECT_FALSE(means(R"("target_modules": ["lm_head"], "layers_to_transform": [1])", "lm_head"));  // it has no layer
}

TEST(AdapterConfig, ModulesToSaveMeanAllBelowThem) {
  const AdapterMatcher all = matcher(R"("modules_to_save": ["norm", "layers.1.mlp", "lm_head"])");
  for (const char* path : {"model.norm", "model.layers.0.input_layernorm", "model.layers.1.mlp.up_proj", "lm_head"})
    EXPECT_TRUE(all.saved(path)) << path;
  for (const char* path : {"model.embed_tokens", "model.layers.0.mlp.up_proj", "model.layers.1.self_attn.q_proj"})
    EXPECT_FALSE(all.saved(path)) << path;
  EXPECT_FALSE(matcher(R"("modules_to_save": null)").saved("lm_head"));
  EXPECT_TRUE(matcher(R"("modules_to_save": "lm_head")").saved("lm_head"));
}

TEST(AdapterConfig, RefusesByName) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"("use_dora": true)", "use_dora"},
      {R"("modules_to_save": [1])", "modules_to_save"},
      {R"("ensure_weight_tying": 1)", "ensure_weight_tying"},
      {R"("bias": "all")", "bias"},
      {R"("lora_bias": true)", "lora_bias"},
      {R"("trainable_token_indices": [1])", "trainable_token_indices"},
      {R"("target_parameters": ["x"])", "target_parameters"},
      {R"("layer_replication": [[0, 4]])", "layer_replication"},
      {R"("fan_in_fan_out": true)", "fan_in_fan_out"},
      {R"("use_qalora": true)", "use_qalora"},
      {R"("future_scale": 2)", "future_scale is 2"},
      {R"("use_magic": true)", "use_magic is true"},
      {R"("alora_invocation_tokens": [1])", "alora_invocation_tokens"},
      {R"("init_lora_weights": "pissa")", "init_lora_weights"},
      {R"("task_type": "SEQ_CLS")", "task_type"},
      {R"("lora_alpha": 0)", "lora_alpha is 0"},
      {R"("lora_alpha": "16")", "lora_alpha"},
      {R"("r": 0)", "r is 0"},
      {R"("r": 2.5)", "r is 2.5"},
      {R"("lora_dropout": 1)", "lora_dropout"},
      {R"("rank_pattern": {"q": -1})", "rank_pattern.q"},
      {R"("alpha_pattern": [1])", "alpha_pattern"},
      {R"("rank_pattern": {"(": 1})", "rank_pattern: the pattern"},
      {R"("target_modules": "(")", "not a regular expression"},
      {R"("target_modules": 3)", "target_modules"},
      {R"("target_modules": ".*q_proj", "layers_to_transform": [1])", "layers_to_transform"},
      {R"("layers_pattern": "layers")", "layers_pattern"},
      {R"("layers_to_transform": [-1])", "layers_to_transform"},
      {R"("r": 1, "r": 2)", "\"r\" stands twice"},
  };
  for (const auto& [fields, word] : cases)
    expect_error(Fault::bad_data, {"adapter_config.json", word}, [&, f = fields] { parsed(f); });
  expect_error(Fault::bad_data, {"peft_type is missing"}, [] { parse_adapter_config("{}", "x"); });
  expect_error(Fault::bad_data, {"peft_type", "IA3"}, [] { parse_adapter_config(R"({"peft_type": "IA3"})", "x"); });
  EXPECT_THAT(
      parsed(
          R"("modules_to_save": null, "layer_replication": null, "loftq_config": {}, "use_dora": false, "future_key": null,
    "init_lora_weights": "gaussian", "exclude_modules": null)")
          .r,
      8);
}

TEST(AdapterConfig, StopsARunawayPattern) {
  expect_error(Fault::bad_data, {"takes too long"},
               [] { matcher(R"x("target_modules": "((.+)+)+(?=Q)")x").match(kDown + kDown); });
}

TEST(AdapterConfig, WritesPeftsFields) {
  AdapterConfig config;
  config.r = 4;
  config.alpha = 8;
  config.target_modules = "all-linear";
  config.rank_pattern = {{"q_proj", 2}, {".*", 3}};
  config.alpha_pattern = {{"z", 1}, {"a", 0.5}};
  config.base_model_name_or_path = "models/base";
  const std::string text = write_adapter_config(config);
  AdapterConfig back = parse_adapter_config(text, "x");
  EXPECT_EQ(std::get<AdapterConfig::Names>(back.target_modules).size(), 7u);
  back.target_modules = "all-linear";
  EXPECT_EQ(back, config);  // the patterns' order included
  const auto json = nlohmann::ordered_json::parse(text);
  EXPECT_EQ(json["lora_alpha"].dump(), "8");
  EXPECT_EQ(json["peft_type"], "LORA");
  EXPECT_EQ(json["inference_mode"], true);
  std::vector<std::string> keys;
  for (const auto& item : json.items()) keys.push_back(item.key());
  EXPECT_TRUE(std::is_sorted(keys.begin(), keys.end()));
  EXPECT_EQ(text.substr(0, 4), "{\n  ");
}

AdapterMatrices matrices() {
  return {{kQ + ".lora_A", {2, 3, {1, 2, 3, 4, 5, 6}}}, {kQ + ".lora_B", {4, 2, {1, 0, 0, 1, 0.1f, 0, 7, 8}}}};
}
AdapterConfig rank2() {
  AdapterConfig config;
  config.r = 2;
  return config;
}

TEST(Adapter, ComesBackAsWritten) {
  ScratchDirectory dir;
  write_adapter(
      dir / "adapter", rank2(), shapes_of(matrices()), [](const std::string& factor) { return matrices().at(factor); },
      DType::f32);
  const Adapter back = read_adapter(dir / "adapter");
  EXPECT_EQ(back.config, rank2());
  EXPECT_EQ(back.matrices, matrices());
  const SafetensorsFile file(dir / "adapter" / "adapter_model.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_NE(file.find("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"), nullptr);

  write_adapter((dir / "adapter") / "", rank2(), shapes_of(matrices()),
                [](const std::string& factor) { return matrices().at(factor); },
                DType::bf16);  // replaces; the slash is no other directory
  AdapterMatrices rounded = matrices();
  rounded[kQ + ".lora_B"].values[4] = static_cast<float>(bf16(0.1f));
  EXPECT_EQ(read_adapter(dir / "adapter").matrices, rounded);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()),
            1);  // nothing stays next to it

  write_text(dir / "adapter" / "thesis.txt", "mine");
  expect_error(Fault::usage, {"thesis.txt"}, [&] {
    write_adapter(
        dir / "adapter", rank2(), shapes_of(matrices()),
        [](const std::string& factor) { return matrices().at(factor); }, DType::f32);
  });
  EXPECT_TRUE(fs::exists(dir / "adapter" / "thesis.txt"));
}

TEST(Adapter, RefusesWhatDoesNotFitTogether) {
  const std::string a = "base_model.model." + kQ + ".lora_A.weight", b = "base_model.model." + kQ + ".lora_B.weight";
  using Tensors = std::vector<std::pair<TensorSpec, std::vector<float>>>;
  const auto refused = [&](const Tensors& tensors, std::initializer_list<std::string> words,
                           const std::string& config = R"({"peft_type":"LORA","r":2})") {
    ScratchDirectory dir;
    write_text(dir / "adapter_config.json", config);
    write_safetensors(dir / "adapter_model.safetensors", tensors);
    expect_error(Fault::bad_data, words, [&] { read_adapter(dir.path()); });
  };
  const TensorSpec good_a{a, StoredType::f32, {2, 3}}, good_b{b, StoredType::f32, {4, 2}};
  refused({{good_a, counted(6)}}, {kQ + ".lora_A", "no lora_B"});
  refused({{good_b, counted(8)}}, {kQ + ".lora_B", "no lora_A"});
  refused({{{a, StoredType::f32, {3, 2}}, counted(6)}, {good_b, counted(8)}}, {"lora_A", "[3, 2]", "rank 2"});
  refused({{good_a, counted(6)}, {{b, StoredType::f32, {2, 4}}, counted(8)}}, {"lora_B", "[2, 4]", "rank 2"});
  refused({{good_a, counted(6)}, {{b, StoredType::f32, {8}}, counted(8)}}, {"lora_B", "a factor is a matrix"});
  refused({{good_a, {1, 2, std::nanf(""), 4, 5, 6}}, {good_b, counted(8)}}, {a, "nan"});
  refused({{good_a, counted(6)},
           {{b, StoredType::bf16, {4, 2}}, {1, 2, 3, 4, 5, 6, 7, std::numeric_limits<float>::infinity()}}},
          {b, "inf"});
  refused({{{"base_model.model.model.norm.weight", StoredType::f32, {1}}, {1}}},
          {"model.norm.weight", "modules_to_save", "does not mean"});
  refused({{{"base_model.model.lm_head.bias", StoredType::f32, {1}}, {1}}}, {"lm_head.bias", "not supported"});
  refused({{{"base_model.model.lm_head.weight", StoredType::f32, {1, 1}}, {1}},
           {{"base_model.model.lm_head.base_layer.weight", StoredType::f32, {1, 1}}, {1}}},
          {"lm_head.weight", "base_layer", "the same weight"});
  refused({{{"base_model.model." + kQ + ".lora_magnitude_vector", StoredType::f32, {1}}, {1}}},
          {"lora_magnitude_vector"});
  refused({{good_a, counted(6)}, {good_b, counted(8)}}, {a, "does not mean"},
          R"({"peft_type":"LORA","r":2,"target_modules":["k_proj"]})");
  refused({{{a, StoredType::i32, {2, 3}}, {}}}, {"I32"});
  refused({}, {"no adapter weights"});

  ScratchDirectory dir;
  expect_error(Fault::missing_input, {"none"}, [&] { read_adapter(dir / "none"); });
  expect_error(Fault::missing_input, {"adapter_config.json"}, [&] { read_adapter(dir.path()); });
  write_text(dir / "adapter_config.json", R"({"peft_type":"LORA"})");
  expect_error(Fault::missing_input, {"adapter_model.safetensors"}, [&] { read_adapter(dir.path()); });
  write_text(dir / "adapter_model.bin", "x");
  expect_error(Fault::bad_data, {"pickles"}, [&] { read_adapter(dir.path()); });
}

TEST(Adapter, IsCheckedAgainstTheModel) {
  const Adapter adapter{rank2(), matrices()};
  check_adapter(adapter.config, shapes_of(adapter.matrices),
                std::vector<LinearSize>{{kQ, 4, 3}, {"model.layers.0.self_attn.k_proj", 9, 9}}, "a");
  expect_error(Fault::bad_data, {"q_proj.lora_A is [2, 3], the model needs [2, 8]"}, [&] {
    check_adapter(adapter.config, shapes_of(adapter.matrices), std::vector<LinearSize>{{kQ, 4, 8}}, "a");
  });
  expect_error(Fault::bad_data, {"v_proj.lora_A is missing", "v_proj.lora_B is missing"}, [&] {
    check_adapter(adapter.config, shapes_of(adapter.matrices),
                  std::vector<LinearSize>{{kQ, 4, 3}, {"model.layers.0.self_attn.v_proj", 9, 9}}, "a");
  });
  expect_error(Fault::bad_data, {"q_proj.lora_A belongs to no linear"},
               [&] { check_adapter(adapter.config, shapes_of(adapter.matrices), {}, "a"); });
}

}  // namespace
}  // namespace drover
