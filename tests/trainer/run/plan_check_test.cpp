// A run that is far from its plan says so once, when it has done enough steps to know.
#include "trainer/run/plan_check.h"

#include <gtest/gtest.h>

namespace drover {
namespace {

std::vector<std::string> said(double planned, const std::vector<double>& seconds) {
  PlanCheck check(planned);
  std::vector<std::string> texts;
  for (const double s : seconds) {
    if (const auto text = check.step(1000, s)) texts.push_back(*text);
  }
  return texts;
}

TEST(PlanCheck, FarFromThePlanIsSaidOnce) {
  const std::vector<std::string> texts = said(1000, {9, 2, 2, 2, 2, 2, 2, 2});
  ASSERT_EQ(texts.size(), 1);
  EXPECT_TRUE(texts[0].starts_with("the run computes 500 tokens/s, and 1000 were planned (-50 %)")) << texts[0];
  EXPECT_EQ(said(1000, {1, 0.5, 0.5, 0.5, 0.5, 0.5}).size(), 1);
}

TEST(PlanCheck, NearItNothingIsSaid) {
  EXPECT_TRUE(said(1000, {9, 1.1, 1.1, 0.9, 1.2, 1.2}).empty());
  EXPECT_TRUE(said(1000, {1, 2, 2, 2, 2}).empty()) << "four steps are too few";
  EXPECT_TRUE(said(0, {1, 2, 2, 2, 2, 2, 2}).empty()) << "there is no plan";
}

TEST(PlanCheck, WhatIsReachedIsTheMedianAfterTheFirstStep) {
  PlanCheck check(0);
  EXPECT_EQ(check.reached(), 0);
  for (const double s : {100.0, 1.0, 2.0, 4.0}) check.step(1000, s);
  EXPECT_EQ(check.reached(), 500);
}

}  // namespace
}  // namespace drover
