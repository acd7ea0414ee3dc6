// The CUDA backend, emulated or on the GPU that all ranks share, staged through host memory.
#include "kernels/comm/staged.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/parallel/device_under_test.h"

namespace drover {

Device device_under_test(const Mesh& host) {
  Device device{std::make_unique<cuda::CudaBackend>(cuda::CudaSettings{}), host};
  device.mesh = make_staged_mesh(host, *device.backend);
  return device;
}

}  // namespace drover
