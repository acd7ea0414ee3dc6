// Collectives of a device's tensors through host memory: down, over the host's communicator, up. Slow (every call waits
// for the device), exact as that communicator is, and indifferent to how many ranks share a device.
#pragma once
#include "kernels/backend.h"
#include "kernels/comm/mesh.h"

namespace drover {

// The mesh whose axes move `backend`'s tensors. `host` moves host memory.
Mesh make_staged_mesh(const Mesh& host, Backend& backend);

}  // namespace drover
