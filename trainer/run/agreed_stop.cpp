#include "trainer/run/agreed_stop.h"

#include "kernels/comm/gather.h"

namespace drover {

static_assert(StopReason::none < StopReason::preempted && StopReason::preempted < StopReason::interrupted);

StopReason agreed_stop(Communicator& ranks) { return std::ranges::max(gather(ranks, stop_requested())); }

bool asked_to_stop(Communicator& ranks) { return agreed_stop(ranks) != StopReason::none; }

}  // namespace drover
