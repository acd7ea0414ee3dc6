// Codes and scales that do not fit: each thing is broken in a directory that is read otherwise.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/files/quantised_files.h"

namespace drover {
namespace {

const std::string kQ = linear_name("q"), kUp = linear_name("up"), kK = linear_name("k");
constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

template <typename Break>
void expect_refused(const std::string& layout, const std::vector<std::string>& words, const Break& broken) {
  ChangedDirectory changed(layout);
  broken(changed);
  SCOPED_TRACE(layout + " " + (words.empty() ? "" : words.front()));
  expect_error(Fault::bad_data, words, [&] { use(changed.written()); });
}

void set(RawTensor& tensor, size_t i, float value) {
  std::memcpy(tensor.bytes.data() + i * sizeof(float), &value, sizeof(float));
}

TEST(QuantisedRefused, WhatIsWholeIsRead) {
  for (const std::string& layout : kLayouts) use(ChangedDirectory(layout).written());
}

TEST(QuantisedRefused, ScalesThatAreNoScales) {
  const std::map<std::string, std::string> scale_of = {{"fbgemm", kUp + "_scale"},
                                                       {"blocks", kUp + "_scale_inv"},
                                                       {"compressed", kUp + "_scale"},
                                                       {"modelopt", kUp + "_scale"}};
  for (const auto& [layout, name] : scale_of) {
    for (const float value : {0.0f, -1.0f, kNan, kInfinity}) {
      expect_refused(layout, {name, "as number 0", "positive and finite"},
                     [&, &name = name](ChangedDirectory& c) { set(c.tensors.at(name), 0, value); });
    }
    expect_refused(layout, {kUp, "has no " + name}, [&, &name = name](ChangedDirectory& c) { c.tensors.erase(name); });
    expect_refused(layout, {name, "is [2, 2]", "needs ["}, [&, &name = name](ChangedDirectory& c) {
      c.tensors.at(name) = floats({1, 1, 1, 1}, {2, 2});
    });
    expect_refused(layout, {name, "stored as U8", "F32, BF16 and F16"}, [&, &name = name](ChangedDirectory& c) {
      RawTensor& scale = c.tensors.at(name);
      scale = {StoredType::u8, scale.shape, std::string(scale.bytes.size() / 4, '\1')};
    });
  }
  // Of another row, or of the last block.
  expect_refused("fbgemm", {kUp + "_scale", "as number 319"},
                 [](ChangedDirectory& c) { set(c.tensors.at(kUp + "_scale"), 319, 0); });
  // Blocks counted along the wrong side.
  expect_refused("blocks", {kUp + "_scale_inv", "is [2, 3]", "block of 128 × 128 of [320, 192] needs [3, 2]"},
                 [](ChangedDirectory& c) {
                   c.tensors.at(kUp + "_scale_inv").shape = {2, 3};
                 });
  expect_refused("fbgemm", {"is [1]", "a scale for each row of [320, 192] needs [320, 1]"},
                 [](ChangedDirectory& c) { c.tensors.at(kUp + "_scale") = floats({1}); });
  expect_refused("modelopt", {"is [320, 1]", "one scale for the whole tensor"}, [](ChangedDirectory& c) {
    c.tensors.at(kUp + "_scale") = floats(std::vector<float>(320, 1), {320, 1});
  });
}

TEST(QuantisedRefused, CodesThatAreNoNumbers) {
  for (const char code : {'\x7f', '\xff'}) {
    expect_refused("blocks", {kUp, "a NaN in row 2, column 5"},
                   [&](ChangedDirectory& c) { c.tensors.at(kUp).bytes[2 * 192 + 5] = code; });
  }
  // Where nobody reads nobody looks.
  ChangedDirectory changed("blocks");
  changed.tensors.at(kUp).bytes[2 * 192 + 5] = '\x7f';
  ModelDirectory model(changed.written());
  EXPECT_EQ(model.read_fp8(kUp, 0, 2, 0, 192).rows, 2);
  EXPECT_EQ(model.read_fp8(kUp, 2, 1, 6, 9).cols, 9);
  expect_error(Fault::bad_data, {"row 2, column 5"}, [&] { model.read_fp8(kUp, 1, 5, 5, 1); });
}

TEST(QuantisedRefused, WhatConfigJsonSaysOtherwise) {
  expect_refused("fbgemm", {linear_name("gate"), "F8_E4M3", "quantization_config", "not quantised"},
                 [](ChangedDirectory& c) {
                   c.config["quantization_config"]["modules_to_not_convert"].push_back("model.layers.0.mlp");
                 });
  expect_refused("compressed", {linear_name("gate"), "no group of"},
                 [](ChangedDirectory& c) { c.config["quantization_config"]["config_groups"].erase("group_1"); });
  expect_refused("compressed", {kQ, "not quantised"},
                 [](ChangedDirectory& c) { c.config["quantization_config"]["ignore"].push_back("re:.*q_proj"); });
  expect_refused("fbgemm", {kQ, "stored as BF16 and has a scale"}, [](ChangedDirectory& c) {
    c.tensors[kQ + "_scale"] = floats(std::vector<float>(128, 1), {128, 1});
  });
  expect_refused("blocks", {kUp + " is stored as F8_E4M3", "quantization_config"},
                 [](ChangedDirectory& c) { c.config.erase("quantization_config"); });
  expect_refused("nf4-plain", {kQ + " is stored as U8", "quantization_config"},
                 [](ChangedDirectory& c) { c.config.erase("quantization_config"); });
  expect_refused("blocks", {kUp + " is stored as F8_E5M2", "BF16, F16 and F32"}, [](ChangedDirectory& c) {
    c.tensors.at(kUp).dtype = StoredType::f8_e5m2;
    c.tensors.erase(kUp + "_scale_inv");
  });
  expect_refused("blocks", {"embed_tokens", "stored as U8"}, [](ChangedDirectory& c) {
    c.tensors.at("model.embed_tokens.weight") = {StoredType::u8, {64, 192}, std::string(64 * 192, '\0')};
  });
  expect_refused("blocks", {"model.norm.weight is F8_E4M3 [192]", "matrices"}, [](ChangedDirectory& c) {
    c.tensors.at("model.norm.weight") = {StoredType::f8_e4m3, {192}, std::string(192, '\0')};
  });
}

TEST(QuantisedRefused, ShapesThatAreNotTheModels) {
  for (const char* layout : {"blocks", "nf4-nested", "compressed"}) {
    ChangedDirectory changed(layout);
    changed.config["num_key_value_heads"] = 1;
    ModelDirectory model(changed.written());
    const std::vector<ExpectedTensor> expected = {{kK, 32, 192}};
    expect_error(Fault::bad_data, {kK + " has 64 rows", "duplicated KV heads"}, [&] { model.check_shapes(expected); });
  }
  const std::vector<ExpectedTensor> turned = {{kUp, 192, 320}};
  ModelDirectory model(golden_directory("nf4-plain"));
  expect_error(Fault::bad_data, {kUp + " is [320, 192], config.json needs [192, 320]"},
               [&] { model.check_shapes(turned); });
}

TEST(QuantisedRefused, NF4ThatLies) {
  const std::string state = kUp + ".quant_state.bitsandbytes__nf4";
  const auto with_state = [&](const std::string& patch) {
    return [&state, patch](ChangedDirectory& c) {
      Json json = parse_json(c.tensors.at(state).bytes, "state");
      json.merge_patch(parse_json(patch, "patch"));
      c.tensors.at(state) = text_bytes(json.dump());
    };
  };
  for (const char* layout : {"nf4-nested", "nf4-plain"}) {
    expect_refused(layout, {kUp, "30720 bytes", "[320, 256]", "needs 40960"}, with_state(R"({"shape": [320, 256]})"));
    expect_refused(layout, {kUp + " is [160, 384], config.json needs [320, 192]"},
                   with_state(R"({"shape": [160, 384]})"));
    expect_refused(layout, {state, "multiple of 64"}, with_state(R"({"shape": [640, 96]})"));
    expect_refused(layout, {state, "blocksize is 128"}, with_state(R"({"blocksize": 128})"));
    expect_refused(layout, {state, "dtype is \"int8\""}, with_state(R"({"dtype": "int8"})"));
    expect_refused(layout, {state}, [&](ChangedDirectory& c) { c.tensors.at(state) = text_bytes("{"); });
    expect_refused(layout, {state, "65536 bytes of JSON"},
                   [&](ChangedDirectory& c) { c.tensors.at(state) = text_bytes(std::string(70'000, ' ')); });
    expect_refused(layout, {kUp, "has no " + state}, [&](ChangedDirectory& c) { c.tensors.erase(state); });
    for (const char* part : {".absmax", ".quant_map"}) {
      expect_refused(layout, {kUp, "has no " + kUp + part}, [&](ChangedDirectory& c) { c.tensors.erase(kUp + part); });
    }
    expect_refused(layout, {kUp + ".absmax", "[960]"}, [&](ChangedDirectory& c) {
      RawTensor& absmax = c.tensors.at(kUp + ".absmax");
      const size_t each = absmax.bytes.size() / 960;
      absmax.bytes.resize(959 * each);
      absmax.shape = {959};
    });
    expect_refused(layout, {kUp + ".quant_map", "as number 3", "NF4"},
                   [&](ChangedDirectory& c) { set(c.tensors.at(kUp + ".quant_map"), 3, -0.4f); });
  }
  expect_refused("nf4-plain", {"stored in FP4", "16 bits"},
                 [&](ChangedDirectory& c) { c.tensors[kUp + ".quant_state.bitsandbytes__fp4"] = c.tensors.at(state); });
  // Nested in one place and not in the other.
  expect_refused("nf4-plain", {kUp + ".absmax", "F32 [960]", "must be U8 [960]"},
                 with_state(R"({"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 1})"));
  expect_refused("nf4-nested", {kUp + ".absmax", "U8 [960]", "must be F32 [960]"},
                 with_state(R"({"nested_blocksize": null, "nested_dtype": null, "nested_offset": null})"));
}

TEST(QuantisedRefused, NF4WithAbsmaxThatCannotBe) {
  for (const float value : {-1.0f, kNan, kInfinity}) {
    expect_refused("nf4-plain", {kUp + ".absmax", "in row 2", "not negative"},
                   [&](ChangedDirectory& c) { set(c.tensors.at(kUp + ".absmax"), 7, value); });
    expect_refused("nf4-nested", {kUp + ".nested_absmax", "as number 3", "not negative"},
                   [&](ChangedDirectory& c) { set(c.tensors.at(kUp + ".nested_absmax"), 3, value); });
  }
  for (const char* part : {".nested_absmax", ".nested_quant_map"}) {
    expect_refused("nf4-nested", {"has no " + kUp + part}, [&](ChangedDirectory& c) { c.tensors.erase(kUp + part); });
  }
  expect_refused("nf4-nested", {kUp + ".nested_absmax", "must be F32 [4]"}, [](ChangedDirectory& c) {
    c.tensors.at(kUp + ".nested_absmax") = floats({1, 1, 1});
  });
  expect_refused("nf4-nested", {kUp + ".nested_quant_map", "as number 9", "dynamic map"},
                 [](ChangedDirectory& c) { set(c.tensors.at(kUp + ".nested_quant_map"), 9, 0.5f); });
  expect_refused("nf4-nested", {kUp + ".nested_quant_map", "as number 9"},
                 [](ChangedDirectory& c) { set(c.tensors.at(kUp + ".nested_quant_map"), 9, kNan); });
  // As near as other versions are, but not the same in all weights.
  expect_refused("nf4-nested", {".nested_quant_map differs", "must be equal"}, [](ChangedDirectory& c) {
    float level = 0;
    RawTensor& map = c.tensors.at(kUp + ".nested_quant_map");
    std::memcpy(&level, map.bytes.data(), sizeof level);
    set(map, 0, std::nextafter(level, 0.0f));
  });
  // A block of zeros.
  ChangedDirectory zeros("nf4-plain");
  set(zeros.tensors.at(kUp + ".absmax"), 7, 0);
  use(zeros.written());
}

TEST(QuantisedRefused, ACutOffFile) {
  for (const std::string& layout : kLayouts) {
    ChangedDirectory changed(layout);
    const fs::path file = changed.written() / "model.safetensors";
    fs::resize_file(file, fs::file_size(file) - 1);
    expect_error(Fault::bad_data, {"model.safetensors", "cut off"}, [&] { ModelDirectory model(file.parent_path()); });
  }
}

TEST(QuantisedRefused, ScaleTensorsAreNoSurplusAndOthersAre) {
  ChangedDirectory changed("modelopt");
  changed.tensors["model.layers.0.self_attn.q_proj.g_idx"] = floats({1});
  ModelDirectory model(changed.written());
  EXPECT_THAT(model.check_names(expected_of_golden()), testing::ElementsAre("model.layers.0.self_attn.q_proj.g_idx"));
}

}  // namespace
}  // namespace drover
