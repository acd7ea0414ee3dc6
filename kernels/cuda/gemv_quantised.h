// Products of a few rows with a quantised weight whose codes are read as they are, once: decoding.
#pragma once
#include <cuda_runtime_api.h>

#include <span>

#include "kernels/cuda/gemv.h"
#include "kernels/low_rank.h"
#include "kernels/weight.h"

namespace drover::cuda {

// y = x·wᵀ + Σ u·bᵀ + beta·y.  x (T,in), T <= kGemvRows, y (T,out), float; u (T, Σ r): the terms' u side by side. w's
// values are rounded to x's dtype, as those of a panel are; sums are fp32, with one rounding at y.
inline constexpr size_t kQuantisedGemvTerms = 4;
bool quantised_gemv_takes(Tensor x, std::span<const LowRank> terms, Tensor u);  // few terms, of x's dtype
void quantised_gemv(cudaStream_t stream, Tensor x, const Weight& w, const LowRankTerms& low_rank, float beta, Tensor y);

}  // namespace drover::cuda
