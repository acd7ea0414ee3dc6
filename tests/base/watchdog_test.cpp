// A process that does nothing for too long is ended as one that hangs; one that beats is left alone.
#include "kernels/base/watchdog.h"

#include <gtest/gtest.h>

#include "kernels/base/program.h"

namespace drover {
namespace {

using namespace std::chrono_literals;

TEST(WatchdogDeathTest, EndsWhatHangsAndSaysWhere) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        set_exit_codes([](Fault fault) { return fault == Fault::rank_hangs ? 80 : 1; });
        Watchdog watchdog("rank 3", 100ms);
        watchdog.beat("step 12");
        std::this_thread::sleep_for(20s);
      },
      testing::ExitedWithCode(80), "rank 3 hangs: .*step 12");
}

TEST(Watchdog, LeavesAloneWhatBeatsOrEnds) {
  Watchdog watchdog("rank 0", 2s);
  for (int i = 0; i < 25; ++i) {
    std::this_thread::sleep_for(100ms);
    watchdog.beat("at work");
  }
  Watchdog ended("rank 1", 3600s);
}

}  // namespace
}  // namespace drover
