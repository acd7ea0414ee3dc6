// The CUDA backend on a GPU, over memory that the host and the device share. Without a GPU every test is skipped.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/reference/backend_under_test.h"

namespace drover::reference {

namespace {

class NeedsGpu : public testing::Environment {
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no GPU";
  }
};
const auto* needs_gpu = testing::AddGlobalTestEnvironment(new NeedsGpu);

}  // namespace

std::unique_ptr<Backend> backend_under_test() { return std::make_unique<cuda::CudaBackend>(cuda::CudaSettings{}); }
void* allocate_shared(size_t bytes) {
  void* block = nullptr;
  cuda::check(cudaMallocManaged(&block, bytes), "cudaMallocManaged");
  return block;
}
void release_shared(void* block) { cudaFree(block); }
void finish() { cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }

}  // namespace drover::reference
