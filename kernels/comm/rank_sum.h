// The arithmetic of an all-reduce: out[i] = round(((x₀[i] + x₁[i]) + x₂[i]) + …), ranks in order, in fp32 (f64 for
// f64), one rounding. Also rows of a pitched tensor as one run of elements, for transports that want bytes side by
// side.
#pragma once
#include <span>

#include "kernels/tensor.h"

namespace drover {

void sum_in_rank_order(std::span<const void* const> parts, int64_t count, DType dtype,
                       void* out);  // out may be one of the parts

// Elements [begin, begin + count) of x in row-major order.
void pack(Tensor x, int64_t begin, int64_t count, void* out);
void unpack(const void* from, Tensor x, int64_t begin, int64_t count);

}  // namespace drover
