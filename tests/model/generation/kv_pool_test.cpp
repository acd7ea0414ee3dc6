#include <set>

#include "tests/model/generation/made_up_room.h"

namespace drover {
namespace {

TEST(KvPool, GivesEachBlockOnceAndTakesItBack) {
  Room room({.blocks = 10});
  KvPool& pool = room.pool();
  CachedSequence a, b, c;
  EXPECT_TRUE(pool.reserve(a, 1));
  EXPECT_TRUE(pool.reserve(b, 16 * 4));
  EXPECT_TRUE(pool.reserve(a, 16 * 5 + 1));
  EXPECT_EQ(pool.free_blocks(), 0);
  std::set<int32_t> held(a.blocks.begin(), a.blocks.end());
  held.insert(b.blocks.begin(), b.blocks.end());
  EXPECT_EQ(held.size(), 10u);
  EXPECT_FALSE(pool.reserve(c, 1));
  EXPECT_TRUE(c.blocks.empty());
  EXPECT_TRUE(pool.reserve(a, 16 * 6));  // it has them already
  EXPECT_FALSE(pool.reserve(a, 16 * 6 + 1));
  EXPECT_EQ(a.blocks.size(), 6u);
  pool.release(b);
  EXPECT_EQ(pool.free_blocks(), 4);
  EXPECT_TRUE(b.blocks.empty());
  EXPECT_TRUE(pool.reserve(c, 64));
  pool.release(a);
  pool.release(c);
  EXPECT_EQ(pool.free_blocks(), 10);
}

}  // namespace
}  // namespace drover
