#include "kernels/cuda/upload_queue.h"

#include "kernels/cuda/check.h"

namespace drover::cuda {

class UploadQueue::Started : public Transfer {
 public:
  Started(cudaStream_t stream, cudaStream_t compute) : compute_(compute) {
    check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    check(cudaEventRecord(done_, stream), "cudaEventRecord");
  }
  ~Started() override { cudaEventDestroy(done_); }
  void wait() override {
    if (!waited_) check(cudaStreamWaitEvent(compute_, done_, 0), "cudaStreamWaitEvent");
    waited_ = true;
  }

 private:
  cudaStream_t compute_;
  cudaEvent_t done_ = nullptr;
  bool waited_ = false;
};

UploadQueue::UploadQueue(cudaStream_t compute) : compute_(compute) {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  check(cudaEventCreateWithFlags(&enqueued_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  uploader_ = std::make_unique<Uploader>(stream_);
}

UploadQueue::~UploadQueue() {
  uploader_.reset();
  cudaEventDestroy(enqueued_);
  cudaStreamDestroy(stream_);
}

std::unique_ptr<Transfer> UploadQueue::start(const void* host, Tensor to) {
  check(cudaEventRecord(enqueued_, compute_), "cudaEventRecord");
  check(cudaStreamWaitEvent(stream_, enqueued_, 0), "cudaStreamWaitEvent");
  const int64_t element = size_of(to.dtype);
  if (to.size() > 0) uploader_->copy(host, to.rows, to.cols * element, to.data, to.pitch * element);
  return std::make_unique<Started>(stream_, compute_);
}

}  // namespace drover::cuda
