// A merged model of a quantised base is in plain numbers: W is what the codes mean.
#include <gtest/gtest.h>

#include "kernels/base/quantise.h"
#include "kernels/cpu/cpu_backend.h"
#include "model/weight_table.h"
#include "tests/base/scratch_directory.h"
#include "tests/files/quantised_files.h"
#include "trainer/export/merge.h"

namespace drover {
namespace {

constexpr const char* kUp = "model.layers.0.mlp.up_proj.weight";

std::vector<float> whole(ModelDirectory& model, const ParamSpec& spec) {
  std::vector<float> values(static_cast<size_t>(spec.rows * spec.cols));
  model.read(spec.name, 0, spec.rows, 0, spec.cols, DType::f32, values.data());
  return values;
}

AdapterConfig of_up() {
  AdapterConfig config;
  config.r = 1;
  config.alpha = 1;
  config.target_modules = AdapterConfig::Names{"up_proj"};
  return config;
}

AdapterMatrix factor(const std::string& name) {
  const bool is_a = name.ends_with("lora_A");
  AdapterMatrix m{is_a ? 1 : 320, is_a ? 192 : 1, {}};
  m.values.assign(static_cast<size_t>(m.rows * m.cols), 0.25f);
  return m;
}

MergeReport merge_into(const fs::path& model, const fs::path& out, const MergeSettings& settings) {
  ModelDirectory directory(model);
  BaseWeights base(directory);
  const AdapterConfig config = of_up();
  return merge(
      {config, factor}, base, out, *make_cpu_backend(1), {}, [](const fs::path&, MergeReport&) {}, settings);
}

// What codes made of the numbers mean.
std::vector<float> requantised(const std::vector<float>& values, const ParamSpec& spec, bool nf4) {
  std::vector<float> read(values.size());
  if (!nf4) {
    dequantise(make_fp8(values, 0, spec.rows, 0, spec.cols), read.data());
    return read;
  }
  std::vector<float> absmax;
  for (size_t i = 0; i < values.size(); i += 64) absmax.push_back(largest_magnitude({values.data() + i, 64}));
  dequantise(Nf4Scales(absmax, spec.cols).make(values, 0, spec.rows, 0, spec.cols), read.data());
  return read;
}

class MergeQuantised : public testing::TestWithParam<std::string> {};

TEST_P(MergeQuantised, IsInPlainNumbers) {
  ScratchDirectory dir;
  ModelDirectory directory(golden_directory(GetParam()));
  const MergeReport report = merge_into(directory.path(), dir / "merged", {});
  EXPECT_EQ(report.all().tensors, 1);
  EXPECT_EQ(report.all().moved, 320 * 192);

  EXPECT_EQ(read_text(dir / "merged" / "config.json").find("quantization_config"), std::string::npos);
  ModelDirectory merged(dir / "merged");
  EXPECT_FALSE(merged.is_quantised());
  for (const ParamSpec& spec : weight_table(directory.config())) {
    EXPECT_EQ(merged.dtype(spec.name), StoredType::bf16);
    const std::vector<float> before = whole(directory, spec), after = whole(merged, spec);
    const float added = spec.name == kUp ? 0.0625f : 0;
    for (size_t i = 0; i < before.size(); ++i)
      ASSERT_EQ(after[i], static_cast<float>(bf16(before[i] + added))) << spec.name << ' ' << i;
  }
}

TEST_P(MergeQuantised, InTheSameFormatOrRefused) {
  ScratchDirectory dir;
  const fs::path golden = golden_directory(GetParam());
  const bool nf4 = GetParam() == "nf4-nested";
  if (!nf4 && GetParam() != "blocks") {
    expect_error(Fault::usage, {"--keep-format writes fp8 in blocks of 128", kUp, "leave --keep-format out"},
                 [&] { merge_into(golden, dir / "merged", {.keep_format = true}); });
    EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 0);
    return;
  }
  const MergeReport report = merge_into(golden, dir / "merged", {.keep_format = true, .max_shard_bytes = 50'000});
  EXPECT_GT(report.all().rounding2, 0);
  EXPECT_EQ(read_text(dir / "merged" / "config.json"), read_text(golden / "config.json"));
  ModelDirectory before(golden), after(dir / "merged");
  EXPECT_GT(after.files().size(), 2u);
  EXPECT_EQ(after.names(), before.names());
  for (const ParamSpec& spec : weight_table(before.config())) {
    EXPECT_EQ(after.scaling(spec.name), before.scaling(spec.name)) << spec.name;
    std::vector<float> expected = whole(before, spec);
    if (spec.name == kUp) {
      for (float& v : expected) v += 0.0625f;
      expected = requantised(expected, spec, nf4);
      if (nf4) {
        for (float& v : expected) v = static_cast<float>(bf16(v));
      }
    }
    EXPECT_EQ(whole(after, spec), expected) << spec.name;
  }
}

// model.weights: an adapter is merged into the numbers that it was trained over.
TEST(MergeMade, IsOfWhatTheCodesMean) {
  ScratchDirectory dir;
  merge_into(golden_directory("blocks"), dir / "dense", {});
  for (const WeightsAs as : {WeightsAs::fp8, WeightsAs::nf4, WeightsAs::dense}) {
    const fs::path out = dir / fmt::format("merged-{}", static_cast<int>(as));
    const MergeReport report = merge_into(dir / "dense", out, {.trained_over = as});
    EXPECT_EQ(report.weights == "the base's numbers", as == WeightsAs::dense) << report.weights;
    ModelDirectory before(dir / "dense"), after(out);
    for (const ParamSpec& spec : weight_table(before.config())) {
      std::vector<float> expected = whole(before, spec);
      if (spec.layer >= 0 && spec.cols > 1 && as != WeightsAs::dense)
        expected = requantised(expected, spec, as == WeightsAs::nf4);
      for (float& v : expected) v = static_cast<float>(bf16(v + (spec.name == kUp ? 0.0625f : 0)));
      EXPECT_EQ(whole(after, spec), expected) << spec.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, MergeQuantised, testing::ValuesIn(kLayouts), [](const auto& info) {
  std::string name = info.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

}  // namespace
}  // namespace drover
