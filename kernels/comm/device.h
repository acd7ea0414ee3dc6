// A device with its place among the ranks: what a run computes on.
#pragma once
#include <functional>

#include "kernels/backend.h"
#include "kernels/comm/mesh.h"

namespace drover {

// A copy is the same device.
struct Device {
  std::shared_ptr<Backend> backend;
  Mesh mesh;  // tp, pp and dp move tensors of this backend; world, strings and barriers are the host's. Ends before the
              // backend
  int threads = 1;  // of this rank on the host
};

// Collective over host.world: every rank gets its device, or all throw the same error.
using OpenDevice = std::function<Device(const Mesh& host)>;

// `gpus`: every rank's name of its GPU, in rank order. "ranks 0 and 1 share one GPU (…)" where two names are the same,
// else nothing.
std::string shared_gpu(const std::vector<std::string>& gpus);

}  // namespace drover
