// Every call into CUDA's libraries is checked. A failure is Fault::internal naming the call, CUDA's words and what to
// do where that is known.
#pragma once
#include <cublasLt.h>
#include <cuda_runtime_api.h>

namespace drover::cuda {

void check(cudaError_t result, const char* call);
void check(cublasStatus_t result, const char* call);

}  // namespace drover::cuda
