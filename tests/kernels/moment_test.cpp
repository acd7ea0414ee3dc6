#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/reference/backend_under_test.h"

namespace drover {
namespace {

TEST(Moment, TimePassesFromOneToTheNext) {
  const auto backend = reference::backend_under_test();
  const auto first = backend->moment();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const auto second = backend->moment();
  EXPECT_GT(first->seconds_until(*second), 0);
  EXPECT_LT(first->seconds_until(*second), 60);
}

}  // namespace
}  // namespace drover
