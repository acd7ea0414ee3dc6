#include "optim/learning_rate.h"

#include <gtest/gtest.h>

#include <vector>

namespace drover {
namespace {

constexpr double kPeak = 2e-4;

// From transformers' get_linear_schedule_with_warmup and get_cosine_schedule_with_warmup (3 warm-up steps of 10), by
// hand.
TEST(LearningRate, Linear) {
  const LearningRate rate{LearningRateShape::linear, kPeak, 3, 10};
  const std::vector<double> expected = {0,       1 / 3.0, 2 / 3.0, 1,       6 / 7.0, 5 / 7.0,
                                        4 / 7.0, 3 / 7.0, 2 / 7.0, 1 / 7.0, 0,       0};
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_DOUBLE_EQ(rate.at(static_cast<int64_t>(i)), kPeak * expected[i]) << i;
}

TEST(LearningRate, Cosine) {
  const LearningRate rate{LearningRateShape::cosine, kPeak, 2, 8};
  // (1 + cos(π·k/6))/2 for k = 0..6
  const std::vector<double> expected = {0, 0.5, 1, 0.9330127018922194, 0.75, 0.5, 0.25, 0.0669872981077807, 0};
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(rate.at(static_cast<int64_t>(i)), kPeak * expected[i], 1e-18) << i;
}

// transformers' get_cosine_with_min_lr_schedule_with_warmup, by hand; linear falls to the same floor.
TEST(LearningRate, FallsToItsFloor) {
  const std::vector<double> cosine = {0, 0.5, 1, 0.9330127018922194, 0.75, 0.5, 0.25, 0.0669872981077807, 0};
  const LearningRate falling{LearningRateShape::cosine, kPeak, 2, 8, 0.1};
  for (size_t i = 2; i < cosine.size(); ++i)
    EXPECT_NEAR(falling.at(static_cast<int64_t>(i)), kPeak * (0.1 + 0.9 * cosine[i]), 1e-18) << i;
  EXPECT_EQ(falling.at(1), kPeak * 0.5);  // the warm-up has no floor
  const LearningRate linear{LearningRateShape::linear, kPeak, 0, 4, 0.2};
  const std::vector<double> expected = {1, 0.8, 0.6, 0.4, 0.2, 0.2};
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(linear.at(static_cast<int64_t>(i)), kPeak * expected[i], 1e-18) << i;
  EXPECT_EQ((LearningRate{LearningRateShape::constant, kPeak, 0, 4, 0.2}).at(3), kPeak);
}

TEST(LearningRate, ConstantWarmsUpToo) {
  const LearningRate rate{LearningRateShape::constant, kPeak, 4, 10};
  EXPECT_EQ(rate.at(0), 0);
  EXPECT_DOUBLE_EQ(rate.at(1), kPeak / 4);
  EXPECT_EQ(rate.at(4), kPeak);
  EXPECT_EQ(rate.at(100), kPeak);
}

TEST(LearningRate, WithoutWarmUpTheFirstStepIsTheFullRate) {
  for (auto shape : {LearningRateShape::constant, LearningRateShape::linear, LearningRateShape::cosine}) {
    EXPECT_EQ((LearningRate{shape, kPeak, 0, 10}).at(0), kPeak);
    EXPECT_GE((LearningRate{shape, kPeak, 10, 10}).at(10), 0);  // nothing left after the warm-up
  }
}

TEST(LearningRate, MovesWhereOneStepOfAllHasARate) {
  EXPECT_TRUE((LearningRate{LearningRateShape::cosine, kPeak, 0, 1}).moves());
  EXPECT_FALSE((LearningRate{LearningRateShape::cosine, kPeak, 1, 1}).moves());  // the only step warms up
  EXPECT_TRUE((LearningRate{LearningRateShape::cosine, kPeak, 1, 2}).moves());
  EXPECT_FALSE((LearningRate{LearningRateShape::constant, 0, 0, 9}).moves());
}

TEST(LearningRate, WarmUpRoundsUp) {
  EXPECT_EQ(warmup_steps_of(0.03, 100), 3);
  EXPECT_EQ(warmup_steps_of(0.03, 101), 4);
  EXPECT_EQ(warmup_steps_of(0, 101), 0);
}

}  // namespace
}  // namespace drover
