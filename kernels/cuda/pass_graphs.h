// Passes as CUDA graphs: what a pass enqueues on the stream is captured once and launched with one call from then on.
// A pass runs a few times before it is captured, so that workspaces have grown and products are tuned; one that uploads
// or downloads is never captured. Memory that is allocated later may lie where a captured kernel does not look for it,
// so that graphs from before are captured anew. DROVER_PASS_GRAPHS=off: none is captured.
#pragma once
#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>

#include "kernels/cuda/traffic.h"

namespace drover::cuda {

class PassGraphs {
 public:
  static constexpr int64_t kPlainRuns = 8;  // of a key, before it is captured
  static constexpr size_t kMostKeys = 256;  // beyond them all are forgotten
  using Key = std::array<int64_t, 4>;

  PassGraphs(cudaStream_t stream, const Traffic& traffic);
  ~PassGraphs();
  PassGraphs(const PassGraphs&) = delete;
  PassGraphs& operator=(const PassGraphs&) = delete;

  void run(const Key& key, const std::function<void()>& enqueue);
  int64_t captured() const { return captured_; }  // graphs, of all so far
  int64_t launched() const { return launched_; }

 private:
  struct Entry {
    int64_t runs = 0;
    cudaGraphExec_t graph = nullptr;
    int64_t allocations = 0;  // when it was captured
  };
  cudaGraphExec_t capture(const std::function<void()>& enqueue);
  void forget_all();

  cudaStream_t stream_;
  const Traffic& traffic_;
  bool captures_;
  std::map<Key, Entry> entries_;
  int64_t captured_ = 0, launched_ = 0;
};

}  // namespace drover::cuda
