// The work of attention that one thread does at a time, for each instruction set: forward a query tile of KV heads, a
// piece of the keys that it sees, or the joining of its pieces, and backward a segment's KV head as a whole, half of
// its keys or the joining of the halves, one key tile, or one query tile. Sums run in an order that depends on nothing
// but the segment, so that all ways to cut the work give the same bits.
#pragma once
#include "kernels/backend.h"
#include "kernels/cpu/attention_common.h"

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

// Keys in blocks, which generation reads, are taken in pieces of kPieceKeys, each with a softmax of its own, and joined
// in rising order (Dao et al. 2023, Flash-Decoding); others are one piece. One task takes all pieces of a query tile,
// or each has a task that leaves it in memory, and then one task joins them.
inline constexpr int64_t kPieceKeys = 256;
enum class ForwardPart : uint8_t { all, piece, join };
struct ForwardTask {
  const Segment* segment;
  int64_t kv_head, kv_heads;  // the first one, and how many
  int64_t q_begin, k_end;
  ForwardPart part = ForwardPart::all;
  float* pieces = nullptr;  // where pieces lie, piece_floats() each
  int64_t piece = 0;
};
inline int64_t forward_pieces(const Segment& s, int64_t k_end) {
  return s.block_table == nullptr ? 1 : std::max<int64_t>((k_end + kPieceKeys - 1) / kPieceKeys, 1);
}
// Of a piece: the sums of values, the highest score and the sum of weights of each row.
inline int64_t piece_floats(int64_t rows, int64_t head_dim) { return whole_lines(rows * (whole_lines(head_dim) + 2)); }

inline int64_t half_floats(const AttentionShape& shape, int64_t queries) {
  return shape.heads / shape.kv_heads * queries * whole_lines(shape.head_dim);
}
// Of a long segment dq is summed over two halves of the keys, which have about as many visible pairs each, and the sums
// are added. Of a short one, and where the sums of a KV head would take more than kHalvesFloats, all keys are the first
// half. A multiple of kTile where there is a second one.
int64_t keys_of_first_half(const Segment& s, const AttentionShape& shape);
enum class BackwardPart : uint8_t {
  whole,
  first_half,   // dk and dv of its keys; dq's sum is left at `halves`,
  second_half,  // and this one's behind it
  join,         // dq of both
  key_tile,     // dk and dv
  query_tile    // dq
};
struct BackwardTask {
  const Segment* segment;
  int64_t kv_head;
  BackwardPart part = BackwardPart::whole;
  int64_t begin = 0;        // of a tile
  float* halves = nullptr;  // the first sum, then the second one, half_floats() of all queries each
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
// The same sixteen rows by sixteen columns at a time (TDPBF16PS).
namespace amx {
void attention_forward(const AttentionForward& call, const ForwardTask& task);
void attention_backward(const AttentionBackward& call, const BackwardTask& task);
}  // namespace amx

}  // namespace drover::cpu
