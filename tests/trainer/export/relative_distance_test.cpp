#include "trainer/export/relative_distance.h"

#include <gtest/gtest.h>

namespace drover {
namespace {

TEST(RelativeDistance, IsOfAllPiecesTogether) {
  const float a[] = {1, 2, 3, 5}, b[] = {1, 2, 2, 4};
  RelativeDistance pieces;
  pieces.add({a, 3}, {b, 3});
  pieces.add({a + 3, 1}, {b + 3, 1});
  EXPECT_DOUBLE_EQ(pieces.value(), std::sqrt(2.0) / 5);
  EXPECT_DOUBLE_EQ(RelativeDistance(a, b).value(), pieces.value());
  EXPECT_EQ(RelativeDistance(b, b).value(), 0);
  EXPECT_EQ(RelativeDistance().value(), 0);
}

}  // namespace
}  // namespace drover
