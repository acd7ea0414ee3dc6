// Requests as rank 0 hands them to the other ranks: whatever decides how they are answered.
#pragma once
#include "kernels/base/json.h"
#include "model/generation/batcher.h"

namespace drover {

Json to_wire(const Request& request);
Request from_wire(const Json& wire);

}  // namespace drover
