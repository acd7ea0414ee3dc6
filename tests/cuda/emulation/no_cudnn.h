// The stand-in for cuDNN takes nothing. With `cudnn_claims` it says that it fits and then refuses, for tests.
#pragma once

namespace drover::cuda::emulation {

inline bool cudnn_claims = false;

}  // namespace drover::cuda::emulation
