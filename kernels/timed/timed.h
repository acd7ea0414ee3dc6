// A backend that passes every op on to another one and keeps what each took: calls and seconds by op, and a matrix product's FLOPs.
// The seconds are those of the call: a backend that only enqueues (CUDA) has to be timed by its own events instead.
#pragma once
#include <map>
#include <string>

#include "kernels/backend.h"

namespace drover {

struct OpTime {
  int64_t calls = 0;
  double seconds = 0;
  int64_t flops = 0;  // of gemm, linear, linear_dx, low_rank_backward; 0 for the rest
};

class TimedBackend : public Backend {
 public:
  explicit TimedBackend(Backend& inner) : inner_(inner) {}
  const std::map<std::string, OpTime>& times() const { return times_; }
  void start_over() { times_.clear(); }

  Memory& memory() override { return inner_.memory(); }
  int64_t workspace_bytes() const override { return inner_.workspace_bytes(); }
  bool enqueues() const override { return inner_.enqueues(); }
  std::string report() const override { return inner_.report(); }
  BackendTraits traits() const override { return inner_.traits(); }
  std::unique_ptr<Weight> make_weight(Arena& arena, const WeightShape& shape) override {
    return inner_.make_weight(arena, shape);
  }
  void load_weight(Weight& w, int64_t row, int64_t rows, const std::function<void(Tensor)>& fill) override {
    inner_.load_weight(w, row, rows, fill);
  }
  void copy(Tensor from, Tensor to) override;
  void copy_all(std::span<const CopyPair> pairs) override;
  void zero(Tensor x) override;
  void upload(const void* host, Tensor to) override;
  void download(Tensor from, void* host) override;
  std::unique_ptr<Reading> read_later(Tensor from) override;
  std::unique_ptr<Moment> moment() override { return inner_.moment(); }
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
  template <typename Work>
  void time(const char* op, int64_t flops, Work&& work);

  Backend& inner_;
  std::map<std::string, OpTime> times_;
};

}  // namespace drover
