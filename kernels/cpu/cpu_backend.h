// The CPU backend: oneDNN for matrices, own vector code for the rest, OpenMP over rows. Results do not depend on the number of threads:
// every row, tile or block is computed by one thread, and sums over rows run in fixed blocks.
#pragma once
#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/gemm.h"

namespace drover::cpu {

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(int threads);
  Memory& memory() override { return *memory_; }
  int64_t workspace_bytes() const override;
  void copy(Tensor from, Tensor to) override;
  void zero(Tensor x) override;
  void upload(const void* host, Tensor to) override;
  void download(Tensor from, void* host) override;
  void gather_rows(Tensor x, Tensor index, Tensor y) override;
  void scatter_rows(Tensor x, Tensor index, Tensor y) override;
  void gemm(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c) override;
  void linear(Tensor x, const Weight& w, const LowRankTerms& low_rank, bool accumulate, Tensor y) override;
  void linear_dx(Tensor dy, const Weight& w, Tensor v, Tensor a, Tensor dx) override;
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
  std::unique_ptr<Memory> memory_;
  int threads_;
  Gemm gemm_;
};

std::unique_ptr<Memory> make_host_memory();

// The elements of a weight: all formats of this backend are dense.
inline Tensor values_of(const Weight& w) { return static_cast<const DenseWeight&>(w).values; }

// Calls f with a typed pointer to the tensor's data: float* or bf16*.
template <typename F>
void with_type(Tensor t, F&& f) {
  switch (t.dtype) {
    case DType::f32: return f(static_cast<float*>(t.data));
    case DType::bf16: return f(static_cast<bf16*>(t.data));
    default: require(false, "an op on floats was given another dtype");
  }
}

}  // namespace drover::cpu
