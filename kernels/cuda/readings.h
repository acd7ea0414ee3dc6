// Numbers from the device to pinned host memory, behind an event: whoever wants them waits for that and for nothing
// enqueued later.
#pragma once
#include <cuda_runtime_api.h>

#include <functional>
#include <memory>

#include "kernels/backend.h"

namespace drover::cuda {

class Readings {
 public:
  Readings(cudaStream_t stream,
           std::shared_ptr<std::function<void()>> after_wait);  // called after each wait where it is set
  std::unique_ptr<Reading> start(Tensor from);                  // (n) f64; may outlive this

 private:
  struct Places;
  class Started;
  cudaStream_t stream_;
  std::shared_ptr<std::function<void()>> after_wait_;
  std::shared_ptr<Places> places_;
};

}  // namespace drover::cuda
