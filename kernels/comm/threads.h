// Ranks as threads of one process, for tests: the same results as over MPI, with sends that end only when their receive
// was posted. A rank that fails releases the others with Fault::rank_lost; one that never comes is named after the
// deadline (Fault::rank_hangs).
#pragma once
#include <functional>

#include "kernels/comm/mesh.h"

namespace drover {

// Runs `work` once per rank of the mesh, each in its own thread with its own Mesh. Throws the failure of the lowest
// rank that failed by itself.
void run_on_threads(const MeshShape& shape, const std::function<void(Mesh&)>& work);

}  // namespace drover
