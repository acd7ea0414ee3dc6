// Whether an exported adapter computes what the trained one does.
#pragma once
#include "trainer/engine/engine.h"

namespace drover {

// Collective. Loads the adapter in `directory` into the engine's replica, and gives how far the log-probabilities of
// the batch's trained tokens are from those before it, ‖exported − trained‖ / ‖trained‖ on this rank; 0 where a rank
// has none.
double exported_distance(Engine& engine, const fs::path& directory, const Batch& batch);

}  // namespace drover
