#include "kernels/cuda/cuda_backend.h"

#include "kernels/base/error.h"
#include "kernels/cuda/attention_plans.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/copy_table.h"
#include "kernels/cuda/low_rank.h"
#include "kernels/cuda/reductions.h"

namespace drover::cuda {

namespace {

class DeviceMemory : public Memory {
 public:
  DeviceMemory(cudaStream_t stream, Traffic& traffic) : stream_(stream), traffic_(traffic) {}
  void* allocate(int64_t bytes) override {
    void* block = nullptr;
    const cudaError_t result = cudaMalloc(&block, static_cast<size_t>(bytes));
    if (result == cudaErrorMemoryAllocation) {
      size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      fail(Fault::internal,
           "out of GPU memory: {} bytes are asked for and {} of {} are free; shard further (parallel.tp, parallel.pp), "
           "lower train.micro_batch_size or "
           "data.max_length, or set memory.activation_checkpointing: full",
           bytes, free, total);
    }
    check(result, "cudaMalloc");
    check(cudaMemsetAsync(block, 0, static_cast<size_t>(bytes), stream_), "cudaMemsetAsync");
    ++traffic_.allocations;
    traffic_.allocated_bytes += bytes;
    return block;
  }
  void release(void* block, int64_t) override { cudaFree(block); }  // waits for work that uses it
  Where where() const override { return Where::device; }
  int64_t process_bytes(int64_t) const override { return 0; }
  int64_t free_bytes() const override {
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return static_cast<int64_t>(free);
  }
  int64_t held_bytes() const override { return traffic_.allocated_bytes; }

 private:
  cudaStream_t stream_;
  Traffic& traffic_;
};

cudaStream_t stream_on(int device) {
  check(cudaSetDevice(device), "cudaSetDevice");
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return stream;
}

}  // namespace

CudaBackend::CudaBackend(const CudaSettings& settings)
    : settings_(settings), stream_(stream_on(settings.device)), pass_graphs_(stream_, traffic_) {
  memory_ = std::make_unique<DeviceMemory>(stream_, traffic_);
  uploader_ = std::make_unique<Uploader>(stream_);
  readings_ = std::make_unique<Readings>(stream_, after_wait_);
  matmul_ = std::make_unique<Matmul>(stream_, settings.deterministic);
  dequantiser_ = std::make_unique<Dequantiser>(stream_, traffic_, settings.most_panel_bytes);
  fp8_operands_ = std::make_unique<Fp8Operands>(stream_, traffic_);
  fp8_matmul_ = std::make_unique<Fp8Matmul>(*matmul_, stream_, settings.deterministic);
  attention_ = std::make_unique<CudaAttention>(stream_, *uploader_, traffic_,
                                               AttentionSettings{.deterministic = settings.deterministic});
  copies_ = std::make_unique<CopyTable>(stream_, *uploader_, traffic_);
  low_rank_ = std::make_unique<LowRankBackward>(stream_, traffic_);
  partial_sums_ = static_cast<PartialSums*>(memory_->allocate(static_cast<int64_t>(sizeof(PartialSums))));  // zeroed
}

CudaBackend::~CudaBackend() {
  cudaStreamSynchronize(stream_);
  memory_->release(partial_sums_, 0);
  low_rank_.reset();
  copies_.reset();
  attention_.reset();
  fp8_matmul_.reset();
  fp8_operands_.reset();
  dequantiser_.reset();
  matmul_.reset();
  readings_.reset();
  upload_queue_.reset();
  uploader_.reset();
  cudaStreamDestroy(stream_);
}

int64_t CudaBackend::workspace_bytes(int64_t) const {
  return matmul_->workspace_bytes() + dequantiser_->workspace_bytes() + fp8_operands_->workspace_bytes() +
         attention_->workspace_bytes() + copies_->bytes() + low_rank_->workspace_bytes();
}

std::string CudaBackend::report() const {
  std::string text;
  const auto describe = [&](const char* direction, const auto& counts) {
    for (const auto& [shape, n] : counts) {
      if (n.fused + n.unfused == 0) continue;
      text += fmt::format("linear {} → {} {}: {}{}{}\n", shape.first, shape.second, direction,
                          n.fused > 0 ? fmt::format("low-rank term fused {} times", n.fused) : "",
                          n.fused > 0 && n.unfused > 0 ? ", " : "",
                          n.unfused > 0 ? fmt::format("unfused {} times", n.unfused) : "");
    }
  };
  describe("forward", paths_.forward);
  describe("backward", paths_.backward);
  return text + "attention: " + attention_->path();
}

// The rows' keys are put where captured kernels read them before anything is enqueued.
void CudaBackend::replay(const Pass& pass, const std::function<void()>& enqueue) {
  const int64_t blocks = attention_->stage(pass.segments, pass.block_size);
  try {
    pass_graphs_.run({pass.key[0], pass.key[1], pass.key[2], blocks}, enqueue);
  } catch (...) {
    attention_->unstage();
    throw;
  }
  attention_->unstage();
}

void CudaBackend::do_upload(const void* host, Tensor to) {
  if (to.size() == 0) return;
  const int64_t element = size_of(to.dtype);
  uploader_->copy(host, to.rows, to.cols * element, to.data, to.pitch * element);
  ++traffic_.uploads;
  traffic_.uploaded_bytes += to.bytes();
}

std::unique_ptr<Transfer> CudaBackend::do_start_upload(const void* host, Tensor to) {
  if (!upload_queue_) upload_queue_ = std::make_unique<UploadQueue>(stream_);
  ++traffic_.uploads;
  traffic_.uploaded_bytes += to.bytes();
  return pinned_.holds(host, to.bytes()) ? upload_queue_->start_pinned(host, to) : upload_queue_->start(host, to);
}

void CudaBackend::do_download(Tensor from, void* host) {
  if (from.size() > 0) {
    const size_t element = static_cast<size_t>(size_of(from.dtype)), width = static_cast<size_t>(from.cols) * element;
    const size_t pitch = from.rows == 1 ? width : static_cast<size_t>(from.pitch) * element;
    check(cudaMemcpy2DAsync(host, width, from.data, pitch, width, static_cast<size_t>(from.rows),
                            cudaMemcpyDeviceToHost, stream_),
          "cudaMemcpy2DAsync");
  }
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  if (*after_wait_) (*after_wait_)();
  ++traffic_.downloads;
  traffic_.downloaded_bytes += from.bytes();
}

std::unique_ptr<Reading> CudaBackend::do_read_later(Tensor from) {
  ++traffic_.downloads;
  traffic_.downloaded_bytes += from.bytes();
  return readings_->start(from);
}

}  // namespace drover::cuda
