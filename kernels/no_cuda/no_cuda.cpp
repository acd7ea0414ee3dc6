// This build has no CUDA backend.
#include "kernels/base/error.h"
#include "kernels/devices/devices.h"

namespace drover {

CudaStatus cuda_status() { return {.why_not = "this program was built without CUDA; configure with -DDROVER_CUDA=ON (launch/cuda-toolkit installs what that needs)"}; }

std::unique_ptr<Backend> make_cuda_backend(const CudaChoice&) { fail(Exit::bad_recipe, "{}", cuda_status().why_not); }

}  // namespace drover
