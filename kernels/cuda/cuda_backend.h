// The CUDA backend on one device (sm_90a): cuBLASLt for matrices, cuDNN for attention where its graphs fit, own kernels for the rest.
// Everything is enqueued on one stream; only `download`, a Reading and a Moment wait, and the tuning of a large product (matmul.h), once. No memory is allocated inside a step,
// apart from a workspace that grows the first time a larger shape is seen. Own kernels have no floating-point atomics and
// add in a fixed order; with `deterministic`, the libraries' results repeat too.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/moment.h"
#include "kernels/cuda/readings.h"
#include "kernels/cuda/traffic.h"
#include "kernels/cuda/upload.h"
#include "kernels/cuda/weight.h"

namespace drover::cuda {

struct CudaSettings {
  int device = 0;
  bool deterministic = false;  // algorithms whose bits do not change from run to run, even where that is slower
};

class CopyTable;      // copy_table.h
class CudaAttention;  // attention_plans.h
class LowRankBackward;  // low_rank.h
struct PartialSums;   // reductions.h

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(const CudaSettings& settings);
  ~CudaBackend() override;
  cudaStream_t stream() const { return stream_; }
  // Called whenever the host has waited for the device: what others wait for on it may have failed meanwhile, and they throw.
  void after_wait(std::function<void()> called) { *after_wait_ = std::move(called); }
  const Traffic& traffic() const { return traffic_; }            // bytes between host and device
  const LinearPaths& linear_paths() const { return paths_; }     // fused and unfused low-rank terms, by shape

  Memory& memory() override { return *memory_; }
  int64_t workspace_bytes() const override;
  BackendTraits traits() const override { return kTraits; }
  bool enqueues() const override { return true; }
  std::string report() const override;
  std::unique_ptr<Weight> make_weight(Arena& arena, const WeightShape& shape) override;
  void copy(Tensor from, Tensor to) override;
  void copy_all(std::span<const CopyPair> pairs) override;
  void zero(Tensor x) override;
  void upload(const void* host, Tensor to) override;
  void download(Tensor from, void* host) override;
  std::unique_ptr<Reading> read_later(Tensor from) override;
  std::unique_ptr<Moment> moment() override { return std::make_unique<EventMoment>(stream_); }
  void gather_rows(Tensor x, Tensor index, Tensor y) override;
  void scatter_rows(Tensor x, Tensor index, Tensor y) override;
  void gemm(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) override;
  void linear(Tensor x, const Weight& w, const LowRankTerms& low_rank, bool accumulate, Tensor y) override;
  void linear_dx(Tensor dy, const Weight& w, Tensor v, Tensor a, Tensor dx) override;
  void low_rank_backward(Tensor dy, std::span<const LowRankGradient> terms, Tensor v) override;
  void add(Tensor x, Tensor y) override;
  void scale_rows(Tensor weights, Tensor x) override;
  void dropout(Tensor x, const DropoutMask& mask, Tensor y) override;
  void dropout_add(Tensor x, const DropoutMask& mask, Tensor y) override;
  void rms_norm(Tensor x, Tensor w, float eps, Tensor y, Tensor rstd) override;
  void rms_norm_again(Tensor x, Tensor rstd, Tensor w, Tensor y) override;
  void rms_norm_backward(Tensor dy, Tensor x, Tensor rstd, Tensor w, Tensor dx) override;
  void rope(Tensor x, Tensor positions, Tensor cosine, Tensor sine, bool inverse) override;
  void swiglu(Tensor gate_up, Tensor y) override;
  void swiglu_backward(Tensor dy, Tensor gate_up, Tensor d_gate_up, Tensor y) override;
  void embedding(Tensor ids, const Weight& table, int64_t begin, int64_t valid, Tensor y) override;
  void attention(Tensor q, const KvView& kv, std::span<const Segment> segments, const AttentionShape& shape, Tensor o, Tensor lse) override;
  void attention_backward(Tensor q, const KvView& kv, std::span<const Segment> segments, const AttentionShape& shape, Tensor o, Tensor lse,
                          Tensor d_o, Tensor dq, Tensor dk, Tensor dv) override;
  void start_statistics(Tensor statistics) override;
  void fold_statistics(Tensor logits, Tensor labels, int64_t begin, int64_t valid, Tensor statistics) override;
  void merge_statistics(Tensor parts, Tensor lse, Tensor logprob) override;
  void cross_entropy_backward(Tensor logits, Tensor labels, int64_t begin, int64_t valid, Tensor lse, Tensor d) override;
  void sample(Tensor logits, Tensor choices, Tensor tokens) override;
  void penalize(Tensor logits, Tensor places, Tensor changes) override;
  void log_probabilities(Tensor logits, Tensor tokens, Tensor values, Tensor top, Tensor top_values) override;
  void sum_squares(Tensor x, Tensor sum) override;
  void dot(Tensor x, Tensor y, Tensor sum) override;
  void clip_factor(Tensor sum, float max_norm, Tensor factor) override;
  void adamw(const AdamW& settings, Tensor factor, Tensor g, Tensor p, Tensor m, Tensor v) override;

 private:
  void fill_strip(Tensor strip, Tensor x, Tensor w, std::span<const LowRankRun> runs, const LowRankTerms& low_rank);

  CudaSettings settings_;
  cudaStream_t stream_ = nullptr;
  Traffic traffic_;
  LinearPaths paths_;
  std::shared_ptr<std::function<void()>> after_wait_ = std::make_shared<std::function<void()>>();
  std::unique_ptr<Memory> memory_;
  std::unique_ptr<Uploader> uploader_;
  std::unique_ptr<Readings> readings_;
  std::unique_ptr<Matmul> matmul_;
  std::unique_ptr<CudaAttention> attention_;
  std::unique_ptr<CopyTable> copies_;
  std::unique_ptr<LowRankBackward> low_rank_;
  PartialSums* partial_sums_ = nullptr;  // of sum_squares and dot
};

}  // namespace drover::cuda
