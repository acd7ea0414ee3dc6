// A merge whose arithmetic is wrong is noticed, in every number type; one that is right is written.
#include "trainer/export/merge.h"

#include <gtest/gtest.h>

#include "kernels/count/count.h"
#include "kernels/cpu/cpu_backend.h"
#include "launch/tiny_model.h"
#include "model/weight_table.h"
#include "tests/base/scratch_directory.h"

namespace drover {
namespace {

AdapterConfig config() {
  AdapterConfig c;
  c.r = 2;
  c.alpha = 4;
  return c;
}

AdapterMatrix factor(ModelDirectory& base, const std::string& name, float size) {
  const bool is_a = name.ends_with("lora_A");
  const std::vector<int64_t> shape = base.shape(name.substr(0, name.rfind('.')) + ".weight");
  AdapterMatrix m{is_a ? 2 : shape[0], is_a ? shape[1] : 2, {}};
  for (int64_t i = 0; i < m.rows * m.cols; ++i) m.values.push_back(size * static_cast<float>((i * 37) % 19 - 9));
  return m;
}

void merge_with(Backend& backend, const ScratchDirectory& dir, float size) {
  ModelDirectory directory(dir / "model");
  BaseWeights base(directory);
  const AdapterConfig adapter = config();
  merge({adapter, [&](const std::string& name) { return factor(directory, name, size); }}, base, dir / "merged",
        backend, {}, [](const fs::path&, MergeReport&) {});
}

TEST(Merge, ProductsThatAreNotMadeAreNoticed) {
  ScratchDirectory dir;
  make_tiny_model(dir / "model", 1);
  CountBackend idle;  // it computes nothing
  try {
    merge_with(idle, dir, 0.02f);
    FAIL() << "it was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.fault(), Fault::corruption) << error.what();
    EXPECT_NE(std::string(error.what()).find("where base and adapter together are"), std::string::npos) << error.what();
  }
  EXPECT_FALSE(fs::exists(dir / "merged"));
  // Less than the weights' own rounding: nothing to notice.
  merge_with(idle, dir, 1e-7f);
  EXPECT_TRUE(fs::exists(dir / "merged"));
}

TEST(Merge, WhatIsRightIsWritten) {
  ScratchDirectory dir;
  make_tiny_model(dir / "model", 1);
  merge_with(*make_cpu_backend(1), dir, 0.02f);
  ModelDirectory base(dir / "model"), merged(dir / "merged");
  const std::string name = "model.layers.1.self_attn.q_proj.weight";
  const std::vector<int64_t> shape = base.shape(name);
  const AdapterMatrix a = factor(base, "model.layers.1.self_attn.q_proj.lora_A", 0.02f),
                      b = factor(base, "model.layers.1.self_attn.q_proj.lora_B", 0.02f);
  std::vector<float> before(static_cast<size_t>(shape[0] * shape[1])), after(before.size());
  base.read(name, 0, shape[0], 0, shape[1], DType::f32, before.data());
  merged.read(name, 0, shape[0], 0, shape[1], DType::f32, after.data());
  for (int64_t i = 0; i < shape[0] * shape[1]; ++i) {
    const int64_t row = i / shape[1], col = i % shape[1];
    float sum = 0;
    for (int64_t k = 0; k < 2; ++k)
      sum += b.values[static_cast<size_t>(row * 2 + k)] * a.values[static_cast<size_t>(k * shape[1] + col)];
    const float expected = before[static_cast<size_t>(i)] + 2 * sum;  // alpha / r
    ASSERT_NEAR(after[static_cast<size_t>(i)], expected, std::abs(expected) * 0x1p-8 + 1e-6) << i;
  }
}

}  // namespace
}  // namespace drover
