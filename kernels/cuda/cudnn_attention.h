// Attention through cuDNN's graphs (cudnn_graph.h): finds or builds the graph of a call's bucket, keeps the document
// tables of the last micro-batches on the device, and one workspace that grows when a graph needs more.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cuda/attention_plans.h"
#include "kernels/cuda/traffic.h"
#include "kernels/cuda/upload.h"

namespace drover::cuda {

// packed_causal(), chunks, or a call that decodes, where there is cuDNN. Deterministic decoding is not for it: what it
// adds up in which order depends on the batch.
bool cudnn_fits(const AttentionCall& call, const AttentionGradients* gradients, bool deterministic);

class CudnnAttention {
 public:
  CudnnAttention(cudaStream_t stream, Uploader& uploader, Traffic& traffic, bool deterministic);
  ~CudnnAttention();
  // `gradients` null: the forward. False where cuDNN has no engine for the shape, or (deterministic) only one whose
  // workspace is out of proportion: the caller takes its own kernels. `why_not()` then says what cuDNN said; a refused
  // bucket is not asked for again.
  bool run(const AttentionCall& call, const AttentionGradients* gradients);
  const std::string& why_not() const;
  int64_t workspace_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace drover::cuda
