#include "trainer/run/best_validation.h"

#include <gtest/gtest.h>

namespace drover {
namespace {

TEST(BestValidation, IsTheLowestAndCountsWhatFollows) {
  BestValidation best;
  best.count(0, 1.0);  // before the first step
  EXPECT_EQ(best, BestValidation());
  best.count(2, 3.0);
  EXPECT_EQ(best, (BestValidation{2, 3.0, 2, 0}));
  best.count(4, 2.5);
  best.count(6, 2.5);  // as low is no better
  best.count(8, 2.6);
  EXPECT_EQ(best, (BestValidation{4, 2.5, 8, 2}));
  best.count(8, 0.1);  // was counted
  best.count(6, 0.1);
  EXPECT_EQ(best, (BestValidation{4, 2.5, 8, 2}));
  best.count(10, 2.4);
  EXPECT_EQ(best, (BestValidation{10, 2.4, 10, 0}));
}

}  // namespace
}  // namespace drover
