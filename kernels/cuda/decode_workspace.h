// Memory for what the blocks of a decoded row leave for each other (attention_kernels.h). It grows when a longer
// sequence or a larger batch comes.
#pragma once
#include <algorithm>
#include <bit>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/traffic.h"

namespace drover::cuda {

class DecodeWorkspace {
 public:
  DecodeWorkspace(cudaStream_t stream, Traffic& traffic) : stream_(stream), traffic_(traffic) {}
  ~DecodeWorkspace() { cudaFree(block_); }
  DecodeWorkspace(const DecodeWorkspace&) = delete;
  DecodeWorkspace& operator=(const DecodeWorkspace&) = delete;

  // For so many floats, and so many counters, which are 0.
  DecodeParts with(int64_t floats, int64_t counters) {
    const auto rounded = [](int64_t n) {
      return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(n, 1024))));
    };
    if (floats > floats_ || counters > counters_) {
      cudaFree(block_);  // waits for work that uses it
      traffic_.allocated_bytes -= bytes();
      block_ = nullptr;
      floats_ = std::max(floats_, rounded(floats));
      counters_ = std::max(counters_, rounded(counters));
      check(cudaMalloc(reinterpret_cast<void**>(&block_), static_cast<size_t>(bytes())), "cudaMalloc");
      check(cudaMemsetAsync(block_, 0, static_cast<size_t>(bytes()), stream_), "cudaMemsetAsync");
      ++traffic_.allocations;
      traffic_.allocated_bytes += bytes();
    }
    return {reinterpret_cast<float*>(block_ + counters_ * static_cast<int64_t>(sizeof(unsigned))),
            reinterpret_cast<unsigned*>(block_)};
  }
  int64_t bytes() const {
    return counters_ * static_cast<int64_t>(sizeof(unsigned)) + floats_ * static_cast<int64_t>(sizeof(float));
  }

 private:
  cudaStream_t stream_;
  Traffic& traffic_;
  char* block_ = nullptr;
  int64_t floats_ = 0, counters_ = 0;
};

}  // namespace drover::cuda
