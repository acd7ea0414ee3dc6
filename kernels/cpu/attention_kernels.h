// The work of attention that one thread does at a time, for each instruction set: a query tile of one KV head forward,
// and backward a segment's KV head as a whole, one key tile of it, or one query tile. Sums run in an order that depends
// on nothing but the segment, so that all ways to cut the work give the same bits.
#pragma once
#include "kernels/backend.h"

namespace drover::cpu {

struct AttentionForward {
  Tensor q;
  KvView kv;
  AttentionShape shape;
  Tensor o, lse;
};
struct AttentionBackward {
  Tensor q;
  KvView kv;
  AttentionShape shape;
  Tensor o, lse, d_o, dq, dk, dv;
};

struct ForwardTask {
  const Segment* segment;
  int64_t kv_head, q_begin, k_end;
};
struct BackwardTask {
  const Segment* segment;
  int64_t kv_head;
  int64_t key_tile = -1, query_tile = -1;  // where one of them begins, of which only dk and dv, or dq, are written
};

template <typename Call, typename Task>
using AttentionKernel = void (*)(const Call&, const Task&);

// T: float or bf16. Where bf16 is not multiplied as such it is widened.
namespace avx2 {
template <typename T>
void attention_forward(const AttentionForward& call, const ForwardTask& task);
template <typename T>
void attention_backward(const AttentionBackward& call, const BackwardTask& task);
}  // namespace avx2
namespace avx512 {
template <typename T>
void attention_forward(const AttentionForward& call, const ForwardTask& task);
template <typename T>
void attention_backward(const AttentionBackward& call, const BackwardTask& task);
}  // namespace avx512
// Two products at a time (VDPBF16PS); probabilities and dS are rounded to bf16 for theirs.
namespace avx512_bf16 {
void attention_forward(const AttentionForward& call, const ForwardTask& task);
void attention_backward(const AttentionBackward& call, const BackwardTask& task);
}  // namespace avx512_bf16

}  // namespace drover::cpu
