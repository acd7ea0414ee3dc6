#include "kernels/base/log.h"

#include <gtest/gtest.h>

namespace drover {
namespace {

TEST(Log, OnlyRankZeroTalksUnlessAsked) {
  testing::internal::CaptureStderr();
  log::set_rank(0, 2);
  log::info("{} ranks", 2);
  log::warn("slow");
  log::set_rank(1, 2);
  EXPECT_EQ(log::rank(), 1);
  log::info("silent");
  log::write_any("lost");
  log::set_rank(0, 1);
  log::write_any("alone");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "2 ranks\nwarning: slow\nrank 1: lost\nalone\n");
}

}  // namespace
}  // namespace drover
