// Quantised weights of a directory through an adapter: as they are stored where the adapter has no others.
#include "model/base_weights.h"

#include <gtest/gtest.h>

#include "tests/base/scratch_directory.h"
#include "tests/files/quantised_files.h"

namespace drover {
namespace {

TEST(BaseWeights, QuantisedOnesAreReadAsTheyAreStored) {
  ModelDirectory directory(golden_directory("blocks"));
  BaseWeights base(directory);
  EXPECT_EQ(base.scaling(linear_name("q")), directory.scaling(linear_name("q")));
  EXPECT_EQ(base.dtype(linear_name("q")), StoredType::f8_e4m3);
  EXPECT_EQ(base.plain_dtype(linear_name("q")), StoredType::bf16);
  EXPECT_EQ(base.shape(linear_name("q")), (std::vector<int64_t>{128, 192}));
  EXPECT_EQ(base.read_fp8(linear_name("q"), 3, 4, 100, 60).codes,
            directory.read_fp8(linear_name("q"), 3, 4, 100, 60).codes);
  EXPECT_FALSE(base.scaling("lm_head.weight"));  // tied to the embedding

  ModelDirectory nf4(golden_directory("nf4-nested"));
  BaseWeights of_nf4(nf4);
  EXPECT_TRUE(of_nf4.scaling(linear_name("down"))->nested);
  EXPECT_EQ(of_nf4.read_nf4(linear_name("down"), 3, 4, 64, 128).codes,
            nf4.read_nf4(linear_name("down"), 3, 4, 64, 128).codes);
}

TEST(BaseWeights, WhatTheAdapterHasInTheirPlaceIsPlain) {
  ScratchDirectory dir;
  write_text(dir / "adapter_config.json",
             R"({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"],
                 "modules_to_save": ["up_proj"]})");
  const auto stored = [](const std::string& module, const std::string& end) {
    return "base_model.model.model.layers.0." + module + end + ".weight";
  };
  write_raw(dir / "adapter_model.safetensors",
            {{stored("self_attn.q_proj", ".lora_A"), floats(std::vector<float>(192, 1), {1, 192})},
             {stored("self_attn.q_proj", ".lora_B"), floats(std::vector<float>(128, 1), {128, 1})},
             {stored("mlp.up_proj", ""), floats(std::vector<float>(320 * 192, 0.5f), {320, 192})}});
  ModelDirectory directory(golden_directory("blocks"));
  BaseWeights base(directory, AdapterFile(dir.path()));
  EXPECT_TRUE(base.changed(linear_name("up")));
  EXPECT_FALSE(base.scaling(linear_name("up")));
  expect_error(Fault::internal, {"adapter"}, [&] { base.read_fp8(linear_name("up"), 0, 1, 0, 1); });
  float value = 0;
  base.read(linear_name("up"), 7, 1, 9, 1, DType::f32, &value);
  EXPECT_EQ(value, 0.5f);
  EXPECT_TRUE(base.scaling(linear_name("q")));
  EXPECT_TRUE(base.scaling(linear_name("gate")));
}

}  // namespace
}  // namespace drover
