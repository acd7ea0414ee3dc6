// What a run leaves on disk: how many checkpoints stay, and what is in them.
#include "trainer/planning/disk_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace drover {
namespace {

ModelConfig model() {
  ModelConfig c;
  c.hidden = 64, c.layers = 2, c.heads = 4, c.kv_heads = 2, c.head_dim = 16, c.ffn = 96, c.vocab = 100;
  return c;
}

AdapterLayout layout() {
  return adapter_layout(model(), [](const std::string& path) {
    return path.ends_with("q_proj") ? std::optional(LowRankSpec{.r = 4}) : std::nullopt;
  });
}

DiskPlan plan(const CheckpointSection& checkpoint, int64_t steps) {
  Recipe recipe;
  recipe.model.path = "/absent";
  recipe.checkpoint = checkpoint;
  return plan_disk(recipe, model(), layout(), {}, nullptr, steps);
}

TEST(DiskPlan, CheckpointsThatStay) {
  EXPECT_EQ(plan({}, 100).checkpoints, 1);
  EXPECT_EQ(plan({.every_steps = 10, .keep = 3}, 100).checkpoints, 3);
  EXPECT_EQ(plan({.every_steps = 60, .keep = 3}, 100).checkpoints, 2);
  EXPECT_EQ(plan({.every_steps = 10, .keep = 3, .keep_best = true}, 100).checkpoints, 4);
}

TEST(DiskPlan, CheckpointsThatAreWritten) {
  EXPECT_EQ(plan({}, 100).written, 1) << "at the end";
  EXPECT_EQ(plan({.every_steps = 10, .keep = 3}, 100).written, 10) << "the end is the tenth";
  EXPECT_EQ(plan({.every_steps = 60, .keep = 3}, 100).written, 2);
  EXPECT_EQ(plan({.every_steps = 10, .keep = 3}, 0).written, 0);
}

// Two layers' q: A (4, 64) and B (64, 4), 1024 numbers in all.
TEST(DiskPlan, BytesByHand) {
  const DiskPlan p = plan({.every_steps = 10, .keep = 2}, 100);
  EXPECT_EQ(p.checkpoint_bytes, 1024 * 16);
  EXPECT_EQ(p.adapter_bytes, 1024 * 4);
  EXPECT_EQ(p.most_bytes(), 3 * 1024 * 16 + 1024 * 4);
  EXPECT_EQ(p.weights_read, 2 * parameter_count(model()));
  EXPECT_THAT(print_disk(p), testing::HasSubstr("2 checkpoints of 0 MB and one more while it is written"));
}

}  // namespace
}  // namespace drover
