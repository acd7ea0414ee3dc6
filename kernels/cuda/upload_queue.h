// Host → device on a stream of its own: behind the ops that were enqueued before, while those that come later run. Who
// needs the rows has the compute stream wait for them, and the host continues.
#pragma once
#include <cuda_runtime_api.h>

#include <memory>

#include "kernels/cuda/upload.h"
#include "kernels/event.h"
#include "kernels/tensor.h"

namespace drover::cuda {

class UploadQueue {
 public:
  explicit UploadQueue(cudaStream_t compute);
  ~UploadQueue();
  UploadQueue(const UploadQueue&) = delete;
  UploadQueue& operator=(const UploadQueue&) = delete;
  // Contiguous host rows of to.dtype, read before this returns, → to (pitched). The transfer is gone before the queue.
  std::unique_ptr<Transfer> start(const void* host, Tensor to);
  // The same from pinned memory, which is read later, until the transfer has been done: the host does not wait, however
  // many bytes there are.
  std::unique_ptr<Transfer> start_pinned(const void* host, Tensor to);

 private:
  class Started;
  void begin();  // behind what the compute stream has
  cudaStream_t compute_, stream_ = nullptr;
  cudaEvent_t enqueued_ = nullptr;  // what the compute stream has before a transfer: it may use `to` as it was
  std::unique_ptr<Uploader> uploader_;
};

}  // namespace drover::cuda
