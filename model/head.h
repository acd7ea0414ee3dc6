// Final norm and vocabulary: log p of labels with their gradient in one pass, without a (T,V) tensor; and plain logits
// for generation.
//   n = norm(x),  logits = n·Wᵀ,  logprob = logits[label] - ln Σ exp(logits),  d(-logprob)/dn = (softmax - onehot)·W
// Rows are taken in chunks whose logits stay until their gradient is formed, so that none is computed twice: at most
// kChunkRows rows and, but for a vocabulary so large that 16 rows are more, kChunkLogits logits. The workspace does not
// depend on T. Under tp the vocabulary is dealt: the ranks exchange {max, Σ exp, label logit} per row, and sum the
// gradient once. Source: Liger kernel's chunking; Megatron-LM's vocabulary-parallel cross-entropy.
// An adapter of the head adds its low-rank term to the logits, and gets its gradients as the chunks are computed.
#pragma once
#include <algorithm>
#include <memory>

#include "kernels/comm/communicator.h"
#include "model/block.h"

namespace drover {

struct Head {
  static constexpr int64_t kChunkRows = 512;
  static constexpr int64_t kChunkLogits = int64_t{1} << 26;  // 256 MiB in f32
  // For a rank's share of the vocabulary.
  static constexpr int64_t chunk_rows(int64_t columns) {
    return std::clamp<int64_t>(kChunkLogits / columns / 16 * 16, 16, kChunkRows);
  }

  Norm norm;
  LinearGroup linear;  // its weight (V/tp rounded up, D)
  VocabularyShare share;
  Communicator* tp = nullptr;

  // rows (N) i32: which rows of x are trained; labels (N) i32 their targets; logprob (N) f32 out.
  // weights (N) f32 and dx (T,D) go together: dx = Σ over rows of weights[i]·d(-logprob[i])/dx, zero elsewhere; empty
  // dx: no gradient is computed. dx may be x.
  void loss(Context& ctx, Tensor x, Tensor rows, Tensor labels, Tensor weights, Tensor logprob, Tensor dx) const;

  // logits (N, tp·share.count) f32 of the given rows, whose adapters ctx names; gathered over tp; columns at or beyond
  // the vocabulary are meaningless.
  void logits(Context& ctx, Tensor x, Tensor rows, Tensor logits) const;
};

}  // namespace drover
