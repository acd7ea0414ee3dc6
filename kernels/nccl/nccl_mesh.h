// The mesh of a device's communicators over NCCL: bootstrapped through the host's mesh, one communicator an axis, split
// from the world's.
//   Collectives of tp and dp go on the backend's queue. A pipeline's messages go on a queue of their own: they start
//   when what was enqueued before them is done, and the backend's queue waits for them only where their transfer is
//   waited for. The host waits for nothing, except while it starts and ends.
// Source: NCCL's user guide (communicators, groups, fault tolerance).
#pragma once
#include <cuda_runtime_api.h>

#include "kernels/comm/mesh.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/nccl/nccl_api.h"

namespace drover::nccl {

struct Settings {
  int device = 0;
  // Sums are added in rank order, so that their bits depend on nothing that NCCL chooses (algorithm, protocol,
  // channels).
  bool deterministic = false;
};

// Collective over host.world, within DROVER_COMM_TIMEOUT_S. Fails on all ranks: rank_hangs naming the ranks that do not
// come, rank_lost where NCCL gives up. `api` and `backend` outlive the mesh.
Mesh make_mesh(const Api& api, const Mesh& host, cuda::CudaBackend& backend, const Settings& settings);

}  // namespace drover::nccl
