#include "kernels/cuda/pinned_memory.h"

#include <cuda_runtime_api.h>

#include <cstring>

#include "kernels/base/error.h"
#include "kernels/cuda/check.h"

namespace drover::cuda {

void* PinnedMemory::allocate(int64_t bytes) {
  void* block = nullptr;
  const cudaError_t result = cudaMallocHost(&block, static_cast<size_t>(bytes));
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(Fault::internal,
         "the host gives no {} bytes more that stay in memory (memory.weights: host), beyond the {} that it gave; "
         "shard further (parallel.tp, parallel.pp), or raise the limits on locked memory",
         bytes, held_);
  }
  check(result, "cudaMallocHost");
  std::memset(block, 0, static_cast<size_t>(bytes));
  blocks_[static_cast<const char*>(block)] = bytes;
  held_ += bytes;
  return block;
}

void PinnedMemory::release(void* block, int64_t bytes) {
  blocks_.erase(static_cast<const char*>(block));
  held_ -= bytes;
  cudaFreeHost(block);
}

bool PinnedMemory::holds(const void* host, int64_t bytes) const {
  const auto* begin = static_cast<const char*>(host);
  auto block = blocks_.upper_bound(begin);
  if (block == blocks_.begin()) return false;
  --block;
  return begin + bytes <= block->first + block->second;
}

}  // namespace drover::cuda
