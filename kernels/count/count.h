// The backend that only counts: ops are tallied by name and shape, addresses are never read. It plans memory, FLOPs and what runs at all.
#pragma once
#include <map>
#include <string>

#include "kernels/backend.h"

namespace drover {

class CountBackend : public Backend {
 public:
  explicit CountBackend(const BackendTraits& traits = {});  // of the backend that is counted for
  ~CountBackend() override;
  const std::map<std::string, OpCount>& counts() const { return counts_; }
  int64_t calls(const std::string& op) const;
  int64_t total_flops() const;
  // For tests: the shape of every gemm-like call, "op (T,in)x(out,in)", in call order.
  void record_shapes(bool on) { record_ = on; }
  const std::vector<std::string>& shapes() const { return shapes_; }

  Memory& memory() override { return *memory_; }
  int64_t workspace_bytes() const override { return 0; }
  BackendTraits traits() const override { return traits_; }
  void copy(Tensor from, Tensor to) override;
  void zero(Tensor x) override;
  void upload(const void* host, Tensor to) override;
  void download(Tensor from, void* host) override;  // zero-fills host
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
  void tally(const char* op, int64_t flops);
  void tally_product(const char* op, Tensor a, int64_t rows, int64_t cols, int64_t flops);  // a times (rows,cols)
  BackendTraits traits_;
  std::unique_ptr<Memory> memory_;
  std::map<std::string, OpCount> counts_;
  std::vector<std::string> shapes_;
  bool record_ = false;
};

}  // namespace drover
