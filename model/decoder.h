// Token by token on the same blocks that train: keys and values of earlier tokens lie in a cache, sequence s in rows [s·capacity, (s+1)·capacity).
#pragma once
#include <span>
#include <vector>

#include "model/sampling.h"
#include "model/stage.h"

namespace drover {

class Decoder {
 public:
  // A whole model on one pipeline stage. `cache` holds sequences·capacity rows per layer; `scratch` what a pass of `pass_tokens` tokens needs.
  Decoder(const Stage& stage, Backend& backend, Arena& cache, Arena& scratch, int64_t sequences, int64_t capacity_tokens);

  struct Input {
    int64_t sequence = 0;
    std::vector<int32_t> ids;  // the next tokens of the sequence, at least one
  };
  // Appends tokens to sequences in one pass; the logits (vocab) f32 of each input's last token, in the inputs' order.
  std::vector<std::vector<float>> append(std::span<const Input> inputs);
  // Appends too, and chooses the token that follows each input, on the device: a draw for each. 81 where a logit is not finite.
  std::vector<int32_t> append_and_choose(std::span<const Input> inputs, const Sampling& sampling, std::span<const Draw> draws);
  void clear(int64_t sequence) { lengths_[static_cast<size_t>(sequence)] = 0; }
  int64_t length(int64_t sequence) const { return lengths_[static_cast<size_t>(sequence)]; }
  int64_t capacity_tokens() const { return capacity_; }

 private:
  Tensor logits_of(Frame& frame, std::span<const Input> inputs);  // (inputs, vocab) f32
  template <typename T>
  Tensor upload(Frame& frame, const std::vector<T>& host);

  const Stage& stage_;
  Backend& backend_;
  Arena& scratch_;
  KvCache cache_;
  int64_t capacity_ = 0;
  std::vector<int64_t> lengths_;
};

}  // namespace drover
