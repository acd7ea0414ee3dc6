// One Llama block:  h = x + Wo·attention(rope(Wqkv·norm(x)));   y = h + Wdown·(silu(gate)·up),  [gate|up] = Wgu·norm(h)
// Backward is the mirror of forward, line for line. T tokens, D hidden, H heads, K kv heads, E head_dim, F ffn (H, K,
// F: this rank's share). Kept for backward: x, rstd, qkv, attended, lse, h, h_rstd, gate_up and the adapters' u; the
// elementwise rest is computed again.
#pragma once
#include "model/linear_group.h"
#include "model/task.h"

namespace drover {

struct Norm {
  Tensor weight;  // (D)
  float eps = 1e-5f;
};

// The first group of a block, in forward order, that backward has to reach.
enum class Reach : uint8_t {
  input,  // all of the block: somebody below wants dx
  qkv,    // the qkv adapters are the lowest that train
  o,
  gate_up,
  down,
};

struct Block {
  // clang-format off
  Norm attention_norm;
  LinearGroup qkv;      // (D) → ((H+2K)·E)   split by output
  LinearGroup o;        // (H·E) → (D)        split by input
  Norm mlp_norm;
  LinearGroup gate_up;  // (D) → (2F)         split by output
  LinearGroup down;     // (F) → (D)          split by input
  AttentionShape attention;  // of this rank
  size_t index = 0;          // in its stage: the layer of the KV cache
  // clang-format on

  struct Saved {
    Tensor x, rstd, qkv, attended, lse, h, h_rstd, gate_up;  // (T,D) (T) (T,(H+2K)E) (T,H·E) (T,H) (T,D) (T) (T,2F)
    Tensor u_qkv, u_o, u_gate_up, u_down;                    // (T,R) of each group
    Saved rows_from(int64_t begin, int64_t count) const;
  };
  int64_t dx_pitch() const;  // of backward's dx, which o and down go back from
  Saved saved(Arena& arena, int64_t tokens, DType dtype) const;

  Task forward(Context& ctx, Tensor x, Saved s) const;  // x (T,D): the residual stream, updated in place
  // dx (T,D): d loss/d y in, d loss/d x out (where reach is input). Of the pitch of dx_pitch().
  Task backward(Context& ctx, Tensor dx, Saved s, Reach reach) const;
};

// The lowest adapted group of a block, or `input` where none is (nothing to reach for).
Reach lowest_adapted_group(const Block& block);

}  // namespace drover
