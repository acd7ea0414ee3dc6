#include "no_cudnn.h"

#include "kernels/cuda/cudnn_attention.h"

namespace drover::cuda {

struct CudnnAttention::State {
  std::string why_not = "there is no cuDNN here";
};

bool cudnn_fits(const AttentionCall&, const AttentionGradients*, bool) { return emulation::cudnn_claims; }
CudnnAttention::CudnnAttention(cudaStream_t, Uploader&, Traffic&, bool) : state_(std::make_unique<State>()) {}
CudnnAttention::~CudnnAttention() = default;
bool CudnnAttention::run(const AttentionCall&, const AttentionGradients*) { return false; }
const std::string& CudnnAttention::why_not() const { return state_->why_not; }
int64_t CudnnAttention::workspace_bytes() const { return 0; }

}  // namespace drover::cuda
