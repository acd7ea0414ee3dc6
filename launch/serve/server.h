// A server from its start to its end: the model on all ranks, HTTP on rank 0.
#pragma once
#include "launch/process.h"
#include "launch/serve/settings.h"

namespace drover {

// Collective. Returns when a stop was asked for and every request that was taken is answered. Errors of the start as
// its parts have them: bad_data, missing_input, bad_recipe; io where the address cannot be had.
Exit serve(const Process& process, const MeshShape& shape, const ServeSettings& settings);

}  // namespace drover
