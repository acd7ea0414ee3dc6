// Attention on the device: cuDNN's graphs where they support the case (bf16, head_dim a multiple of 8 up to 128;
// contiguous keys, or prompts' chunks over keys in blocks), else own kernels. Segments and block tables go to the
// device once and are kept while they stay the same, so that all layers of a micro-batch share one upload.
#pragma once
#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "kernels/backend.h"
#include "kernels/cuda/traffic.h"
#include "kernels/cuda/upload.h"

namespace drover::cuda {

struct AttentionCall {
  Tensor q;
  KvView kv;
  std::span<const Segment> segments;
  AttentionShape shape;
  Tensor o, lse;
};
struct AttentionGradients {
  Tensor d_o, dq, dk, dv;
};

struct AttentionSettings {
  bool deterministic = false;
  bool own_kernels_only = false;
  std::function<void(const std::string&)> log =
      {};  // called once when cuDNN refuses a call that it should take; without one, the program's log
};

class CudaAttention {
 public:
  CudaAttention(cudaStream_t stream, Uploader& uploader, Traffic& traffic, AttentionSettings settings);
  ~CudaAttention();
  void forward(const AttentionCall& call);
  void backward(const AttentionCall& call, const AttentionGradients& gradients);
  // Until `unstage`, every forward is of these single rows, which are uploaded here, to where they always are: kernels
  // that are captured read them there again. Returns a bound of the longest row's blocks of keys, which the kernels are
  // started for: 1, 2, 4, …
  int64_t stage(std::span<const Segment> rows, int64_t block_size);
  void unstage();
  int64_t workspace_bytes() const;
  std::string path()
      const;  // what was taken how often: "cuDNN 64 times, own kernels 2 times"; "not used" before the first call

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace drover::cuda
