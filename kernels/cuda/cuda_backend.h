// The CUDA backend on one device (sm_90a): cuBLASLt for matrices, cuDNN for attention where its graphs fit, own kernels
// for the rest. Everything is enqueued on one stream; only `download`, a Reading and a Moment wait, and the tuning of a
// large product (matmul.h), once. No memory is allocated inside a step, apart from a workspace that grows the first
// time a larger shape is seen. Own kernels have no floating-point atomics and add in a fixed order; with
// `deterministic`, the libraries' results repeat too.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/dequantise.h"
#include "kernels/cuda/fp8_matmul.h"
#include "kernels/cuda/fp8_operand.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/moment.h"
#include "kernels/cuda/pass_graphs.h"
#include "kernels/cuda/pinned_memory.h"
#include "kernels/cuda/readings.h"
#include "kernels/cuda/traffic.h"
#include "kernels/cuda/upload.h"
#include "kernels/cuda/upload_queue.h"
#include "kernels/cuda/weight.h"
#include "kernels/replay.h"

namespace drover::cuda {

struct CudaSettings {
  int device = 0;
  bool deterministic = false;  // algorithms whose bits do not change from run to run, even where that is slower
  int64_t most_panel_bytes = Dequantiser::kMostPanelBytes;  // for quantised weights
};

class CopyTable;        // copy_table.h
class CudaAttention;    // attention_plans.h
class LowRankBackward;  // low_rank.h
struct PartialSums;     // reductions.h

class CudaBackend : public Backend, public PassReplays {
 public:
  explicit CudaBackend(const CudaSettings& settings);
  ~CudaBackend() override;
  cudaStream_t stream() const { return stream_; }
  // Called whenever the host has waited for the device: what others wait for on it may have failed meanwhile, and they
  // throw.
  void after_wait(std::function<void()> called) { *after_wait_ = std::move(called); }
  const Traffic& traffic() const { return traffic_; }         // bytes between host and device
  const LinearPaths& linear_paths() const { return paths_; }  // fused and unfused low-rank terms, by shape

  Memory& memory() override { return *memory_; }
  Memory& upload_memory() override { return pinned_; }
  using Backend::workspace_bytes;
  int64_t workspace_bytes(int64_t rows) const override;
  BackendTraits traits() const override { return kTraits; }
  bool enqueues() const override { return true; }
  std::string report() const override;
  std::unique_ptr<Weight> make_weight(Arena& arena, const WeightShape& shape) override;
  std::unique_ptr<Moment> moment() override { return std::make_unique<EventMoment>(stream_); }
  void replay(const Pass& pass, const std::function<void()>& enqueue) override;
  const PassGraphs& pass_graphs() const { return pass_graphs_; }

 private:
  void fill_strip(Tensor strip, Tensor x, Tensor below, std::span<const LowRankRun> runs, const LowRankTerms& low_rank);
  void linear_quantised(Tensor x, const Weight& w, const LowRankTerms& low_rank, bool accumulate, Tensor y);
  // Adds low-rank terms to columns of y in fp32, of which the first is given.
  using AddTerms = std::function<void(Tensor tile, int64_t column)>;
  void quantised_with_terms(Tensor x, const Weight& w, const AddTerms& add, bool accumulate, Tensor y);
  void linear_dx_quantised(Tensor dy, const Weight& w, Tensor v, Tensor a, Tensor dx);
  void linear_fp8(Tensor x, const Fp8Weight& w, const LowRankTerms& low_rank, bool accumulate, Tensor y);
  void linear_dx_fp8(Tensor dy, const Fp8Weight& w, Tensor v, Tensor a, Tensor dx);
  void multiply_fp8(const Fp8Operand& x, const Fp8Operand& w, bool blocks, bool accumulate, Tensor out,
                    const std::function<void(Tensor)>& add);
  DROVER_OPS(DROVER_KERNEL_OVERRIDE)
  DROVER_COMPOSED_OPS(DROVER_KERNEL_OVERRIDE)
  std::unique_ptr<Reading> do_read_later(Tensor from) override;
  std::unique_ptr<Transfer> do_start_upload(const void* host, Tensor to) override;

  CudaSettings settings_;
  cudaStream_t stream_ = nullptr;
  Traffic traffic_;
  LinearPaths paths_;
  std::shared_ptr<std::function<void()>> after_wait_ = std::make_shared<std::function<void()>>();
  std::unique_ptr<Memory> memory_;
  PinnedMemory pinned_;
  std::unique_ptr<Uploader> uploader_;
  std::unique_ptr<UploadQueue> upload_queue_;  // made when it is first used
  std::unique_ptr<Readings> readings_;
  std::unique_ptr<Matmul> matmul_;
  std::unique_ptr<Dequantiser> dequantiser_;
  std::unique_ptr<Fp8Operands> fp8_operands_;
  std::unique_ptr<Fp8Matmul> fp8_matmul_;
  std::unique_ptr<CudaAttention> attention_;
  std::unique_ptr<CopyTable> copies_;
  std::unique_ptr<LowRankBackward> low_rank_;
  PartialSums* partial_sums_ = nullptr;  // of sum_squares and dot
  PassGraphs pass_graphs_;
};

}  // namespace drover::cuda
