// The CUDA backend over the emulation in this folder: device memory is host memory, and every call is done when it
// returns.
#include <cstdlib>

#include "kernels/cuda/cuda_backend.h"
#include "tests/reference/backend_under_test.h"

namespace drover::reference {

std::unique_ptr<Backend> backend_under_test() { return std::make_unique<cuda::CudaBackend>(cuda::CudaSettings{}); }
void* allocate_shared(size_t bytes) { return std::malloc(bytes); }
void release_shared(void* block) { std::free(block); }
void finish() {}

}  // namespace drover::reference
