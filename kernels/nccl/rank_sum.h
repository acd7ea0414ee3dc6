// out[i] = Σ over ranks, in rank order, of their parts: own[i] of this rank, inbox[slot·stride + i] of the others
// (slot: their ranks in order, this one left out). Sums of bf16 and f32 are in fp32, of f64 in f64, rounded once. out
// may be own.
#pragma once
#include <cuda_runtime_api.h>

#include "kernels/tensor.h"

namespace drover::nccl {

struct RankSum {
  const void* own = nullptr;
  const void* inbox = nullptr;
  int64_t stride = 0;  // elements
  int rank = 0, size = 1;
  int64_t count = 0;
  DType dtype = DType::f32;
};
void rank_sum(const RankSum& sum, void* out, cudaStream_t stream);

}  // namespace drover::nccl
