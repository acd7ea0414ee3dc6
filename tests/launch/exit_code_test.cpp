// Scripts rely on these numbers (launch/README.md, "Exit codes").
#include "launch/exit_code.h"

#include <gtest/gtest.h>

namespace drover {
namespace {

TEST(ExitCode, EveryFaultHasItsNumber) {
  const std::pair<Fault, int> codes[] = {{Fault::usage, 64},      {Fault::bad_data, 65},   {Fault::missing_input, 66},
                                         {Fault::internal, 70},   {Fault::io, 74},         {Fault::bad_recipe, 78},
                                         {Fault::rank_hangs, 80}, {Fault::non_finite, 81}, {Fault::corruption, 82},
                                         {Fault::rank_lost, 83}};
  for (const auto& [fault, code] : codes) EXPECT_EQ(static_cast<int>(exit_of(fault)), code);
}

TEST(ExitCode, AStoppedRunSaysHow) {
  EXPECT_EQ(static_cast<int>(exit_of(StopReason::none)), 0);
  EXPECT_EQ(static_cast<int>(exit_of(StopReason::preempted)), 75);
  EXPECT_EQ(static_cast<int>(exit_of(StopReason::interrupted)), 130);
}

}  // namespace
}  // namespace drover
