// The exit codes that scripts rely on, and which one says what.
#pragma once
#include "kernels/base/error.h"
#include "trainer/run/stop_signal.h"

namespace drover {

enum class Exit : int {
  done = 0,
  usage = 64,
  bad_data = 65,
  missing_input = 66,
  internal = 70,
  io = 74,
  preempted = 75,  // checkpoint saved
  bad_recipe = 78,
  hang = 80,
  non_finite = 81,
  corruption = 82,
  rank_lost = 83,
  interrupted = 130,  // checkpoint saved
};

Exit exit_of(Fault fault);
Exit exit_of(StopReason stop);  // of a run; none: it was done

}  // namespace drover
