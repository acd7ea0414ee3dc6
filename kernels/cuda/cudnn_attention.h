// Causal attention of packed documents through cuDNN's graphs (cudnn-frontend), forward and backward: bf16, head_dim a multiple of 8 up to 128.
// A graph is built once per bucket of (documents, longest document) and kept; tensors are ragged ("THD"), so nothing is padded.
// Source: cuDNN 9 developer guide, scaled dot product attention; Dao 2023.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cuda/attention_plans.h"

namespace drover::cuda {

// Whether the graphs can do what is asked for: bf16, no block table, every segment causal over its own rows (q0 == k0, nq == nk, offset 0) and
// following the one before without a gap, head_dim % 8 == 0 and <= 128.
bool cudnn_fits(const AttentionCall& call);

class CudnnAttention {
 public:
  CudnnAttention(cudaStream_t stream, bool deterministic);
  ~CudnnAttention();
  // False where cuDNN has no engine for the shape: the caller takes its own kernels. `why_not()` then says what cuDNN said.
  bool forward(const AttentionCall& call);
  bool backward(const AttentionCall& call, const AttentionGradients& gradients);
  const std::string& why_not() const;
  int64_t workspace_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace drover::cuda
