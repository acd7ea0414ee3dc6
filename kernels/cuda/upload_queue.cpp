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

void UploadQueue::begin() {
  check(cudaEventRecord(enqueued_, compute_), "cudaEventRecord");
  check(cudaStreamWaitEvent(stream_, enqueued_, 0), "cudaStreamWaitEvent");
}

std::unique_ptr<Transfer> UploadQueue::start_pinned(const void* host, Tensor to) {
  begin();
  const size_t element = static_cast<size_t>(size_of(to.dtype)), width = static_cast<size_t>(to.cols) * element;
  if (to.contiguous()) {
    check(cudaMemcpyAsync(to.data, host, static_cast<size_t>(to.bytes()), cudaMemcpyHostToDevice, stream_),
          "cudaMemcpyAsync");
  } else if (to.size() > 0) {
    check(cudaMemcpy2DAsync(to.data, static_cast<size_t>(to.pitch) * element, host, width, width,
                            static_cast<size_t>(to.rows), cudaMemcpyHostToDevice, stream_),
          "cudaMemcpy2DAsync");
  }
  return std::make_unique<Started>(stream_, compute_);
}

std::unique_ptr<Transfer> UploadQueue::start(const void* host, Tensor to) {
  begin();
  const int64_t element = size_of(to.dtype);
  if (to.size() > 0) uploader_->copy(host, to.rows, to.cols * element, to.data, to.pitch * element);
  return std::make_unique<Started>(stream_, compute_);
}

}  // namespace drover::cuda
