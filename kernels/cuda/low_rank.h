// The low-rank part of a linear's backward in one pass over dy: v = scale·dy·b and grad_b += dyᵀ·u, both from the same
// tiles in shared memory. As two products, dy would be read twice, and at these ranks reading it is what they cost.
#pragma once
#include <cuda_runtime_api.h>

#include <span>

#include "kernels/backend.h"
#include "kernels/cuda/traffic.h"

namespace drover::cuda {

class LowRankBackward {
 public:
  static constexpr int64_t kMostFloats = int64_t{16}
                                         << 20;  // of partial sums at a time: longer passes are made in pieces

  LowRankBackward(cudaStream_t stream, Traffic& traffic, int64_t most_floats = kMostFloats)
      : stream_(stream), traffic_(traffic), most_floats_(most_floats) {}
  ~LowRankBackward();
  LowRankBackward(const LowRankBackward&) = delete;
  LowRankBackward& operator=(const LowRankBackward&) = delete;

  static constexpr size_t kMostTerms = 4;
  static constexpr int64_t kMostRank = 32;  // beyond it, the arithmetic costs more than reading dy
  // bf16, up to kMostTerms terms whose ranks are multiples of 8 up to kMostRank, everything on 16-byte boundaries; the
  // columns of v in fours.
  static bool takes(Tensor dy, std::span<const LowRankGradient> terms, Tensor v);
  void operator()(Tensor dy, std::span<const LowRankGradient> terms,
                  Tensor v);  // of what it takes; as Backend::low_rank_backward
  int64_t workspace_bytes() const {
    return most_floats_ * static_cast<int64_t>(sizeof(float));
  }  // at most, and so from the start

 private:
  float* partial_sums(int64_t floats);

  cudaStream_t stream_;
  Traffic& traffic_;
  int64_t most_floats_;
  float* partial_sums_ = nullptr;  // grows the first time a larger shape is seen
  int64_t floats_ = 0;
};

}  // namespace drover::cuda
