// Products with a few rows: decoding.
#pragma once
#include <cuda_runtime_api.h>

#include "kernels/tensor.h"

namespace drover::cuda {

inline constexpr int64_t kGemvRows = 8;  // what the CPU backend decodes alike too; more go to cuBLASLt

// y = alpha·x·wᵀ + beta·y.  x (T,in), T <= kGemvRows, w (out,in) of x's dtype, y (T,out), float; fp32 inside, one
// rounding.
inline bool gemv_takes(Tensor x, Tensor w) { return x.rows <= kGemvRows && x.dtype == w.dtype; }
void gemv(cudaStream_t stream, float alpha, Tensor x, Tensor w, float beta, Tensor y);

}  // namespace drover::cuda
