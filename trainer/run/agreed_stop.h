// A stop that any rank was asked for, known to all of them. Collective over the communicator.
#pragma once
#include "kernels/comm/communicator.h"
#include "trainer/run/stop_signal.h"

namespace drover {

StopReason agreed_stop(Communicator& ranks);
bool asked_to_stop(Communicator& ranks);

}  // namespace drover
