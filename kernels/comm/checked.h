// For tests and for hunting hangs: before every collective, all ranks compare what they are about to do (sequence
// number, call, dtype, element count, root) and fail with internal naming the ranks that differ, instead of mixing up
// data. Sends pass through.
#pragma once
#include "kernels/comm/communicator.h"

namespace drover {

std::unique_ptr<Communicator> make_checked_communicator(std::shared_ptr<Communicator> inner);

}  // namespace drover
