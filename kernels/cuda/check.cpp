#include "kernels/cuda/check.h"

#include "kernels/base/error.h"

namespace drover::cuda {

void check(cudaError_t result, const char* call) {
  if (result == cudaSuccess) return;
  if (result == cudaErrorMemoryAllocation) {
    fail(Fault::internal,
         "out of GPU memory in {}; shard further (parallel.tp, parallel.pp), lower train.micro_batch_size or "
         "data.max_length, or set "
         "memory.activation_checkpointing: full",
         call);
  }
  fail(Fault::internal,
       "internal error: {} failed: {} ({}); an earlier kernel may be the cause: run with CUDA_LAUNCH_BLOCKING=1 to see "
       "which",
       call, cudaGetErrorString(result), cudaGetErrorName(result));
}

void check(cublasStatus_t result, const char* call) {
  if (result == CUBLAS_STATUS_SUCCESS) return;
  fail(Fault::internal, "internal error: {} failed: {}", call, cublasLtGetStatusString(result));
}

}  // namespace drover::cuda
