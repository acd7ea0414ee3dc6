#include "data/statistics.h"

#include <gtest/gtest.h>

namespace drover {
namespace {

TEST(Statistics, CountLengthsFillAndEnds) {
  TokenStore store;
  const auto add = [&](const std::vector<int32_t>& ids, const std::vector<uint8_t>& trained) {
    store.add_document(ids, trained, 1);
  };
  add({1, 2}, {0, 1});                                      // ends in 2
  add({1, 5, 9, 1, 5, 2}, {0, 1, 1, 0, 1, 1});              // two answers: 9 ends none, 2 does
  add({1, 5, 5, 5, 5, 5, 5, 2}, {0, 1, 1, 1, 1, 1, 1, 0});  // the 2 is not trained
  store.make_rows(true, 8);
  ASSERT_EQ(store.rows(), 2);
  const std::vector<int32_t> ends = {2, 3};
  const StoreStatistics s = statistics(store, 8, ends);
  EXPECT_EQ(s.shortest, 2);
  EXPECT_EQ(s.median, 6);
  EXPECT_EQ(s.longest, 8);
  EXPECT_EQ(s.lengths, (std::vector<int64_t>{0, 1, 1, 1}));
  EXPECT_EQ(s.filled, 1.0);
  EXPECT_EQ(s.answers, 4);
  EXPECT_EQ(s.ended, 2);
}

}  // namespace
}  // namespace drover
