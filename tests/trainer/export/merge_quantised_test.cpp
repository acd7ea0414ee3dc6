// A merged model of a quantised base is in plain numbers: W is what the codes mean.
#include <gtest/gtest.h>

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

class MergeQuantised : public testing::TestWithParam<std::string> {};

TEST_P(MergeQuantised, IsInPlainNumbers) {
  ScratchDirectory dir;
  ModelDirectory directory(golden_directory(GetParam()));
  BaseWeights base(directory);
  AdapterConfig config;
  config.r = 1;
  config.alpha = 1;
  config.target_modules = AdapterConfig::Names{"up_proj"};
  const auto factor = [](const std::string& name) {
    const bool is_a = name.ends_with("lora_A");
    AdapterMatrix m{is_a ? 1 : 320, is_a ? 192 : 1, {}};
    m.values.assign(static_cast<size_t>(m.rows * m.cols), 0.25f);
    return m;
  };
  merge({config, factor}, base, dir / "merged", *make_cpu_backend(1), {}, [](const fs::path&) {});

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

INSTANTIATE_TEST_SUITE_P(Layouts, MergeQuantised, testing::ValuesIn(kLayouts), [](const auto& info) {
  std::string name = info.param;
  std::ranges::replace(name, '-', '_');
  return name;
});

}  // namespace
}  // namespace drover
