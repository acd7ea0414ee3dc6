// A quantised directory holds the codes and scales that loading the dense one with model.weights makes, and what cannot
// be quantised leaves nothing behind.
#include "trainer/export/quantise_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/base/json.h"
#include "launch/tiny_model.h"
#include "model/base_weights.h"
#include "model/dense_pieces.h"
#include "model/files/stored_formats.h"
#include "model/weight_table.h"
#include "tests/base/scratch_directory.h"
#include "tests/files/quantised_files.h"
#include "trainer/export/relative_distance.h"

namespace drover {
namespace {

using testing::HasSubstr;

constexpr const char* kUp = "model.layers.0.mlp.up_proj.weight";

std::vector<float> whole(ModelDirectory& model, const std::string& name) {
  const std::vector<int64_t> shape = model.shape(name);
  const int64_t cols = shape.size() > 1 ? shape[1] : 1;
  std::vector<float> values(static_cast<size_t>(shape[0] * cols));
  model.read(name, 0, shape[0], 0, cols, DType::f32, values.data());
  return values;
}

// The golden's model in plain numbers, `spoiled` in one of kUp.
fs::path dense_model(const fs::path& directory, StoredType type, std::optional<float> spoiled = {}) {
  ModelDirectory golden(golden_directory("blocks"));
  fs::create_directory(directory);
  Json config = parse_json(read_text(golden.path() / "config.json"), "config.json");
  config.erase("quantization_config");
  write_text(directory / "config.json", config.dump());
  std::vector<std::pair<TensorSpec, std::vector<float>>> tensors;
  for (const ParamSpec& spec : weight_table(golden.config())) {
    tensors.push_back({{spec.name, type, golden.shape(spec.name)}, whole(golden, spec.name)});
    if (spoiled && spec.name == kUp) tensors.back().second[200] = *spoiled;
  }
  write_safetensors(directory / "model.safetensors", tensors);
  write_text(directory / "tokenizer_config.json", "{\"whose\": \"the model's\"}");
  return directory;
}

bool is_linear(const ParamSpec& spec) { return spec.name.ends_with("_proj.weight"); }

void expect_same(const Fp8Slice& a, const Fp8Slice& b, const std::string& name) {
  EXPECT_EQ(a.blocks, b.blocks) << name;
  EXPECT_EQ(a.codes, b.codes) << name;
  EXPECT_EQ(a.scales, b.scales) << name;
}

void expect_same(const Nf4Slice& a, const Nf4Slice& b, const std::string& name) {
  EXPECT_EQ(a.codes, b.codes) << name;
  EXPECT_EQ(a.absmax_codes, b.absmax_codes) << name;
  EXPECT_EQ(a.nested, b.nested) << name;
  EXPECT_EQ(a.levels, b.levels) << name;
  EXPECT_EQ(a.offset, b.offset) << name;
}

// What a loader makes of `spec`, against what the directory holds.
void expect_made(BaseWeights& dense, ModelDirectory& back, const ParamSpec& spec, QuantiseTo to) {
  const std::vector<float> values = whole(dense.directory(), spec.name);
  if (to == QuantiseTo::fp8) {
    expect_same(back.read_fp8(spec.name, 0, spec.rows, 0, spec.cols), make_fp8(values, 0, spec.rows, 0, spec.cols),
                spec.name);
  } else {
    expect_same(back.read_nf4(spec.name, 0, spec.rows, 0, spec.cols),
                nf4_scales(dense, spec, 1).make(values, 0, spec.rows, 0, spec.cols), spec.name);
  }
}

class Quantise : public testing::TestWithParam<QuantiseTo> {};

TEST_P(Quantise, HasTheCodesThatALoaderMakes) {
  for (const StoredType type : {StoredType::bf16, StoredType::f32}) {
    ScratchDirectory dir;
    ModelDirectory model(dense_model(dir / "dense", type));
    BaseWeights dense(model);
    const QuantiseReport report = quantise_model(model, dir / "out", {.to = GetParam()});
    ModelDirectory back(dir / "out");
    EXPECT_EQ(back.config(), model.config());
    EXPECT_EQ(report.linears, 7);
    for (const ParamSpec& spec : weight_table(model.config())) {
      EXPECT_EQ(back.shape(spec.name), model.shape(spec.name));
      if (is_linear(spec)) {
        expect_made(dense, back, spec, GetParam());
        const bool rounds = GetParam() == QuantiseTo::nf4 && type == StoredType::bf16;
        EXPECT_EQ(back.scaling(spec.name)->rounding, rounds ? Rounding::bf16 : Rounding::none);
      } else {
        EXPECT_EQ(back.dtype(spec.name), type);
        EXPECT_EQ(whole(back, spec.name), whole(model, spec.name));
      }
    }
    EXPECT_EQ(report.bytes_before, static_cast<int64_t>(fs::file_size(dir / "dense" / "model.safetensors")));
    EXPECT_EQ(report.bytes_after, static_cast<int64_t>(fs::file_size(dir / "out" / "model.safetensors")));
    EXPECT_EQ(read_text(dir / "out" / "tokenizer_config.json"), read_text(dir / "dense" / "tokenizer_config.json"));
  }
}

TEST_P(Quantise, AModelMayBeManyShards) {
  ScratchDirectory dir;
  ModelDirectory model(dense_model(dir / "dense", StoredType::bf16));
  BaseWeights dense(model);
  for (const int64_t most : {1, 20'000, 31'000, 40'000}) {
    const fs::path out = dir / fmt::format("out-{}", most);
    quantise_model(model, out, {.to = GetParam(), .max_shard_bytes = most});
    ModelDirectory back(out);
    EXPECT_GT(back.files().size(), 3u);
    for (const ParamSpec& spec : weight_table(model.config())) {
      if (is_linear(spec)) expect_made(dense, back, spec, GetParam());
    }
  }
}

TEST_P(Quantise, SaysHowFarTheWeightsAreOff) {
  ScratchDirectory dir;
  ModelDirectory model(dense_model(dir / "dense", StoredType::bf16));
  const QuantiseReport report = quantise_model(model, dir / "out", {.to = GetParam()});
  ModelDirectory back(dir / "out");
  ASSERT_EQ(report.errors.size(), 7u);
  const auto [least, most] = GetParam() == QuantiseTo::fp8 ? std::pair(0.0, 0.03) : std::pair(0.05, 0.11);
  for (const KindError& error : report.errors) {
    const std::string name = linear_name(error.kind.substr(0, error.kind.find('_')));
    EXPECT_DOUBLE_EQ(error.mean, RelativeDistance(whole(back, name), whole(model, name)).value());
    EXPECT_EQ(error.mean, error.largest);
    EXPECT_GE(error.mean, least);
    EXPECT_LT(error.mean, most);
  }
}

TEST_P(Quantise, FormatsAreNamedByWeightAndNotByPart) {
  ScratchDirectory dir;
  ModelDirectory model(dense_model(dir / "dense", StoredType::bf16));
  quantise_model(model, dir / "out", {.to = GetParam()});
  ModelDirectory back(dir / "out");
  const StoredFormats formats = stored_formats(back);
  const std::string format = GetParam() == QuantiseTo::fp8 ? "fp8" : "nf4";
  EXPECT_EQ(formats.method, GetParam() == QuantiseTo::fp8 ? "fp8" : "bitsandbytes");
  EXPECT_EQ(formats.weights.size(), weight_table(model.config()).size());
  EXPECT_EQ(formats.weights.at(kUp).format, format);
  EXPECT_EQ(formats.weights.at(kUp).shape, (std::vector<int64_t>{320, 192}));
  EXPECT_EQ(formats.linears, (std::map<std::string, int64_t>{{format, 7}}));
  EXPECT_EQ(formats.part_of.size(), GetParam() == QuantiseTo::fp8 ? 7u : 35u);
  int64_t all = 0;
  const SafetensorsFile file(dir / "out" / "model.safetensors");
  for (const StoredTensor& tensor : file.tensors()) all += static_cast<int64_t>(tensor.bytes);
  EXPECT_EQ(formats.bytes.at(format) + formats.bytes.at("BF16"), all);
  EXPECT_EQ(formats.bytes.at("BF16"), 2 * (64 * 192 + 3 * 192));
}

TEST_P(Quantise, WhatIsInTheFormatAlreadyIsRefused) {
  for (const std::string& layout : kLayouts) {
    ScratchDirectory dir;
    ModelDirectory model(golden_directory(layout));
    if (layout.starts_with("nf4") != (GetParam() == QuantiseTo::nf4)) {
      BaseWeights meant(model);
      quantise_model(model, dir / "out", {.to = GetParam()});
      ModelDirectory back(dir / "out");
      for (const ParamSpec& spec : weight_table(model.config())) {
        if (is_linear(spec)) expect_made(meant, back, spec, GetParam());
      }
      continue;
    }
    try {
      quantise_model(model, dir / "out", {.to = GetParam()});
      ADD_FAILURE() << layout << " was quantised again";
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::usage);
      EXPECT_THAT(error.what(), HasSubstr("already"));
    }
    EXPECT_FALSE(fs::exists(dir / "out"));
  }
}

TEST_P(Quantise, AWeightThatIsNotFiniteIsNamedAndNothingStays) {
  for (const float value : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    ScratchDirectory dir;
    ModelDirectory model(dense_model(dir / "dense", StoredType::f32, value));
    try {
      quantise_model(model, dir / "out", {.to = GetParam()});
      ADD_FAILURE() << value << " was quantised";
    } catch (const Error& error) {
      EXPECT_EQ(error.fault(), Fault::bad_data);
      EXPECT_THAT(error.what(), HasSubstr(std::string(kUp) + " holds "));
      EXPECT_THAT(error.what(), HasSubstr("in row 1, column 8"));
    }
    const auto left = [&] { return std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()); };
    EXPECT_EQ(left(), 1);  // the dense model
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Quantise, testing::Values(QuantiseTo::fp8, QuantiseTo::nf4),
                         [](const auto& info) { return info.param == QuantiseTo::fp8 ? "fp8" : "nf4"; });

TEST(QuantiseToNf4, ColumnsThatAreNoBlocksOfNf4AreNamed) {
  ScratchDirectory dir;
  make_tiny_model(dir / "tiny", 1);
  ModelDirectory model(dir / "tiny");
  try {
    quantise_model(model, dir / "out", {.to = QuantiseTo::nf4});
    ADD_FAILURE() << "it was quantised";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::usage);
    EXPECT_THAT(error.what(), HasSubstr("model.layers.0.self_attn.o_proj.weight has 96 columns"));
  }
  EXPECT_FALSE(fs::exists(dir / "out"));
}

}  // namespace
}  // namespace drover
