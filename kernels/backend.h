// The arithmetic of Drover on one device: about thirty ops, each with its equation, shapes, dtypes and aliasing rules.
// Three backends implement it: Cpu, Cuda, Count (which counts and computes nothing). A new op is a method and a row of
// DROVER_OPS here, its check, FLOPs and bytes in backend.cpp, a kernel `do_NAME` for Cpu and one for Cuda, and a test.
// Letters: T tokens, D hidden, H heads, K kv heads, E head_dim, F ffn, V vocabulary rows of this rank, R rank, C rows
// of a chunk. "float" below is bf16 or f32. Every op computes in fp32 and rounds once, at its output. Tensors do not
// alias unless it is said. Ops are enqueued in order; only `download` and who waits for a Reading or a Moment hold the
// host up. Host arrays (spans) are read before the call returns. Operands that do not fit are a bug (Fault::internal),
// whatever the backend.
#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/arena.h"
#include "kernels/event.h"
#include "kernels/low_rank.h"
#include "kernels/op_call.h"
#include "kernels/tensor.h"
#include "kernels/weight.h"

namespace drover {

enum class Trans : uint8_t { no, yes };

// In which order the sums of a linear run.
enum class SumOrder : uint8_t {
  fastest,  // may depend on the number of rows
  by_row,   // a row of y has the same bits whatever rows share the call; on a GPU as `fastest`
};

// Keys and values as attention sees them: rows of a pool. Position p of a segment lies in row
// block_table[p / block_size] · block_size + p % block_size, or in row k0 + p where the segment has no table.
struct KvView {
  Tensor k, v;  // (rows, K·E) float, any pitch
  int64_t block_size = 0;
};

// Query rows [q0, q0+nq) attend keys 0..nk-1 of one sequence: query i sees key j where j <= i + offset.
struct Segment {
  int64_t q0 = 0, nq = 0;
  int64_t k0 = 0, nk = 0;
  int64_t offset = 0;                    // nk - nq for causal attention
  const int32_t* block_table = nullptr;  // host memory
};

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0,
          head_dim = 0;  // heads % kv_heads == 0; query head h reads kv head h / (heads / kv_heads)
  float scale = 1;       // 1/√head_dim
};

// How a row of logits chooses its token.
struct SamplingRow {
  float temperature = 1;  // 0: the first of the order, whatever the rest says
  float top_p = 1;        // in (0, 1]
  float top_k = 0;        // a whole number; 0: all
  float min_p = 0;        // in [0, 1], of the largest mass
  float uniform = 0;      // the draw, in [0, 1)
};
inline constexpr int64_t kSamplingColumns = sizeof(SamplingRow) / sizeof(float);

// The lowest there is: finite, since `sample` reports what is not.
inline constexpr float kForbiddenLogit = -0x1.fffffep127f;
inline constexpr int64_t kBitsPerWord = 32;  // of the words that say what may come
inline int64_t bit_words(int64_t columns) { return (columns + kBitsPerWord - 1) / kBitsPerWord; }

struct AdamW {
  double learning_rate = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8,
         weight_decay = 0;  // double: 1 - β2 of a rounded β2 would be 1e-5 off
  int64_t step = 1;         // of this update, from 1
};

// What a backend wants of the tensors that are made for it; known without the backend, for plans.
struct BackendTraits {
  std::unique_ptr<Weight> (*lay_out)(Arena& arena, const WeightShape& shape) = lay_out_rows;  // of make_weight
  // What tensor-parallel ranks add up is rounded to the computing dtype first, which halves what travels; else it is
  // fp32.
  bool rounds_partials = false;
  bool own_memory = false;  // tensors lie in memory of the device's own, not in the host's
};

struct CopyPair {
  Tensor from, to;
};

// Pairs of a query and a key that it sees: what attention multiplies.
int64_t visible_pairs(const Segment& segment);

// Every op of Backend and the types of its parameters: the kernels that a backend has to have. Those of
// DROVER_COMPOSED_OPS are carried out by other ops where a backend has no kernel of its own for them.
// clang-format off
#define DROVER_OPS(OP)                                                                                                \
  OP(copy, Tensor, Tensor)                                                                                            \
  OP(zero, Tensor)                                                                                                    \
  OP(upload, const void*, Tensor)                                                                                     \
  OP(download, Tensor, void*)                                                                                         \
  OP(gather_rows, Tensor, Tensor, Tensor)                                                                             \
  OP(scatter_rows, Tensor, Tensor, Tensor)                                                                            \
  OP(gemm, Trans, Trans, float, Tensor, Tensor, float, Tensor)                                                        \
  OP(linear, Tensor, const Weight&, const LowRankTerms&, bool, Tensor, SumOrder)                                      \
  OP(linear_dx, Tensor, const Weight&, Tensor, Tensor, Tensor)                                                        \
  OP(add, Tensor, Tensor)                                                                                             \
  OP(scale_rows, Tensor, Tensor)                                                                                      \
  OP(dropout, Tensor, const DropoutMask&, Tensor)                                                                     \
  OP(dropout_add, Tensor, const DropoutMask&, Tensor)                                                                 \
  OP(rms_norm, Tensor, Tensor, float, Tensor, Tensor)                                                                 \
  OP(rms_norm_again, Tensor, Tensor, Tensor, Tensor)                                                                  \
  OP(rms_norm_backward, Tensor, Tensor, Tensor, Tensor, Tensor)                                                       \
  OP(rope, Tensor, Tensor, Tensor, Tensor, bool)                                                                      \
  OP(swiglu, Tensor, Tensor)                                                                                          \
  OP(swiglu_backward, Tensor, Tensor, Tensor, Tensor)                                                                 \
  OP(embedding, Tensor, const Weight&, int64_t, int64_t, Tensor)                                                      \
  OP(attention, Tensor, const KvView&, std::span<const Segment>, const AttentionShape&, Tensor, Tensor)               \
  OP(attention_backward, Tensor, const KvView&, std::span<const Segment>, const AttentionShape&, Tensor, Tensor,      \
     Tensor, Tensor, Tensor, Tensor)                                                                                  \
  OP(start_statistics, Tensor)                                                                                        \
  OP(fold_statistics, Tensor, Tensor, int64_t, int64_t, Tensor)                                                       \
  OP(merge_statistics, Tensor, Tensor, Tensor)                                                                        \
  OP(cross_entropy_backward, Tensor, Tensor, int64_t, int64_t, Tensor, Tensor)                                        \
  OP(sample, Tensor, Tensor, Tensor)                                                                                  \
  OP(penalize, Tensor, Tensor, Tensor)                                                                                \
  OP(allow, Tensor, Tensor, Tensor)                                                                                   \
  OP(log_probabilities, Tensor, Tensor, Tensor, Tensor, Tensor)                                                       \
  OP(sum_squares, Tensor, Tensor)                                                                                     \
  OP(dot, Tensor, Tensor, Tensor)                                                                                     \
  OP(clip_factor, Tensor, float, Tensor)                                                                              \
  OP(adamw, const AdamW&, Tensor, Tensor, Tensor, Tensor, Tensor)
#define DROVER_COMPOSED_OPS(OP)                                                                                       \
  OP(copy_all, std::span<const CopyPair>)                                                                             \
  OP(linear_of_parts, Tensor, const Weight&, std::span<const LinearPart>, bool, Tensor)                               \
  OP(low_rank_backward, Tensor, std::span<const LowRankGradient>, Tensor)
#define DROVER_KERNEL(NAME, ...) virtual void do_##NAME(__VA_ARGS__) = 0;
#define DROVER_COMPOSED_KERNEL(NAME, ...) virtual void do_##NAME(__VA_ARGS__);
#define DROVER_KERNEL_OVERRIDE(NAME, ...) void do_##NAME(__VA_ARGS__) override;  // in a backend's class
// clang-format on

class Backend {
 public:
  virtual ~Backend() = default;
  virtual Memory& memory() = 0;
  // What the backend itself holds, the arenas not counted: for ops of at most so many rows, or any.
  virtual int64_t workspace_bytes(int64_t rows) const = 0;
  int64_t workspace_bytes() const { return workspace_bytes(std::numeric_limits<int64_t>::max()); }
  virtual BackendTraits traits() const { return {}; }
  virtual bool enqueues() const {
    return false;
  }  // ops return before they are done, so that it pays to go on before a Reading is there
  virtual std::string report() const { return {}; }             // which paths the work has taken so far, for the log
  void observe(OpObserver* observer) { observer_ = observer; }  // gets every op from now on; nullptr: none

  // --- moving ------------------------------------------------------------------------------------
  void copy(Tensor from, Tensor to);  // same shape, any pair of float/f64 dtypes, or one of i32 and u8; from != to
  // `copy` of each, whose memory is apart from all others'; worth a call where many small ones come again and again.
  void copy_all(std::span<const CopyPair> pairs);
  void zero(Tensor x);
  void upload(const void* host, Tensor to);  // contiguous host rows of to.dtype → to (pitched)
  // The same on a queue of its own: behind what was enqueued before, while later ops run. `to` belongs to the transfer
  // until its `wait`; what is enqueued after that sees the rows. Where ops run at once, so does this.
  std::unique_ptr<Transfer> start_upload(const void* host, Tensor to);
  // Memory of the host from which start_upload copies while the host does other work: what it copies from there stays
  // as it is until the transfer has been done. Unless it is overridden, the backend's own.
  virtual Memory& upload_memory() { return memory(); }
  void download(Tensor from, void* host);  // from (pitched) → contiguous host rows; waits for all work before it
  std::unique_ptr<Reading> read_later(Tensor from);  // (n) f64, few; unless it is overridden, downloaded at once
  virtual std::unique_ptr<Moment> moment();          // unless it is overridden, by the host's clock
  // y[i] = x[index[i]].  x (T,D), index (C) i32, y (C,D), same float
  void gather_rows(Tensor x, Tensor index, Tensor y);
  // y[index[i]] = x[i], other rows kept.  x (C,D), index (C) i32, y (T,D), same float
  void scatter_rows(Tensor x, Tensor index, Tensor y);

  // --- frozen weights (weight.h) -----------------------------------------------------------------
  // In memory of `arena`, which it does not outlive. Uninitialised but for the room for an adapter, which is zero.
  virtual std::unique_ptr<Weight> make_weight(Arena& arena, const WeightShape& shape);
  // Rows [row, row + rows) become what `fill` writes to the (rows, in) tensor that it is given, f32 or bf16.
  virtual void load_weight(Weight& w, int64_t row, int64_t rows, const std::function<void(Tensor)>& fill);

  // --- linear algebra ----------------------------------------------------------------------------
  // c = alpha·op(a)·op(b) + beta·c.  a, b float (may differ); c float; accumulation in fp32.
  void gemm(Trans ta, Trans tb, float alpha, Tensor a, Tensor b, float beta, Tensor c);
  // y = x·wᵀ + Σ u·bᵀ (+ y where accumulate), u = scale·drop(x)·aᵀ: a linear with its low-rank terms, one rounding at
  // y and one at u.  x (T,in), w (out,in), y (T,out), all float. x may be overwritten between its rows
  // (Weight::x_pitch).
  // by_row takes no masks.
  void linear(Tensor x, const Weight& w, const LowRankTerms& low_rank, bool accumulate, Tensor y,
              SumOrder order = SumOrder::fastest);
  // `linear` by_row, of parts of x that follow each other (at least one), each with low-rank terms of its own and no
  // masks. Unless it is overridden, a `linear` for each part; else w is read once for all.
  void linear_of_parts(Tensor x, const Weight& w, std::span<const LinearPart> parts, bool accumulate, Tensor y);
  // dx = dy·w + v·a: its backward with respect to x.  dy (T,out), w (out,in), v (T,R), a (R,in), dx (T,in), all float;
  // v, a may be empty.
  void linear_dx(Tensor dy, const Weight& w, Tensor v, Tensor a, Tensor dx);
  // For each term, dy_m being its columns of dy:  v_m = scale·dy_m·b,  grad_b += dy_mᵀ·u.  v (T,≥ Σ r) float: the
  // terms' v_m side by side, then zeros; it may lie next to dy in one memory. Unless it is overridden, two products a
  // term.
  void low_rank_backward(Tensor dy, std::span<const LowRankGradient> terms, Tensor v);

  // --- pointwise ---------------------------------------------------------------------------------
  void add(Tensor x, Tensor y);                               // y += x.  any float, or both f64; same shape
  void scale_rows(Tensor weights, Tensor x);                  // x[t,:] *= weights[t].  weights (T) f32, x (T,D) float
  void dropout(Tensor x, const DropoutMask& mask, Tensor y);  // y = mask∘x/(1-p).  same float shape
  void dropout_add(Tensor x, const DropoutMask& mask, Tensor y);  // y += mask∘x/(1-p).  any float

  // y[t,i] = x[t,i]·rstd[t]·w[i], rstd[t] = 1/√(mean_i x[t,i]² + eps).  x, y (T,D) float; w (D) float; rstd (T) f32.
  // Source: Zhang & Sennrich 2019.
  void rms_norm(Tensor x, Tensor w, float eps, Tensor y, Tensor rstd);
  void rms_norm_again(Tensor x, Tensor rstd, Tensor w, Tensor y);  // the same y from a kept rstd
  // dx[t,i] += rstd[t]·(g[i] - x̂[i]·mean_j(g[j]·x̂[j])), g = dy∘w, x̂ = x·rstd.  dy, x, dx (T,D) float. The weight is
  // frozen: no dw.
  void rms_norm_backward(Tensor dy, Tensor x, Tensor rstd, Tensor w, Tensor dx);

  // Rotates pairs (i, i+E/2) of every head of x by its token's angle, in place; `inverse` by minus the angle (the
  // backward). x (T, n·E) float; positions (T) i32; cosine, sine (P, E/2) f32. Source: Su et al. 2021, in Hugging
  // Face's half-split order.
  void rope(Tensor x, Tensor positions, Tensor cosine, Tensor sine, bool inverse);

  // y = silu(gate)·up.  gate_up (T,2F) = [gate | up], y (T,F), same float. Source: Shazeer 2020.
  void swiglu(Tensor gate_up, Tensor y);
  // d_gate = dy·up·silu'(gate), d_up = dy·silu(gate), and, unless it is empty, the forward's y once more.  dy, y (T,F),
  // gate_up, d_gate_up (T,2F), same float; d_gate_up may be gate_up, and y dy.
  void swiglu_backward(Tensor dy, Tensor gate_up, Tensor d_gate_up, Tensor y);

  // y[t] = table[id[t] - begin] where begin <= id[t] < begin + valid, else 0.  ids (T) i32, table (V,D) float, y (T,D)
  // same float.
  void embedding(Tensor ids, const Weight& table, int64_t begin, int64_t valid, Tensor y);

  // --- attention ---------------------------------------------------------------------------------
  // o[i] = Σ_j softmax_j(scale·q[i]·k[j])·v[j], per head, tiled (no T×T tensor).  q, o (T,H·E) same float as kv; lse
  // (T,H) f32 = ln Σ exp. Source: Dao 2023 (FlashAttention-2). Rows outside every segment are left alone. A row that
  // sees no key gives o = 0, lse = -inf.
  void attention(Tensor q, const KvView& kv, std::span<const Segment> segments, const AttentionShape& shape, Tensor o,
                 Tensor lse);
  // dq (T,H·E), dk, dv (rows of kv, K·E) are written (not added to) on the segments' rows; contiguous views only (no
  // block table). May not alias.
  void attention_backward(Tensor q, const KvView& kv, std::span<const Segment> segments, const AttentionShape& shape,
                          Tensor o, Tensor lse, Tensor d_o, Tensor dq, Tensor dk, Tensor dv);

  // --- loss: softmax over a vocabulary that is seen block by block -------------------------------
  // Folds a block of logits into running statistics {max, Σ exp(l - max), logit of the label}; start them with
  // `start_statistics`. logits (C,B) f32: vocabulary rows [begin, begin + B), of which the first `valid` count; labels
  // (C) i32; statistics (C,3) f32.
  void start_statistics(Tensor statistics);  // {-inf, 0, 0}
  void fold_statistics(Tensor logits, Tensor labels, int64_t begin, int64_t valid, Tensor statistics);
  // parts (n·C,3): n ranks' statistics, one under another → lse (C) f32, logprob (C) f32 = label logit - lse.
  void merge_statistics(Tensor parts, Tensor lse, Tensor logprob);
  // d[c,v] = exp(logits[c,v] - lse[c]) - [labels[c] == begin + v], 0 for v >= valid.  logits f32; d float, may alias
  // logits when f32.
  void cross_entropy_backward(Tensor logits, Tensor labels, int64_t begin, int64_t valid, Tensor lse, Tensor d);

  // --- generation --------------------------------------------------------------------------------
  // tokens[i] = the column that row i chooses, or -1 where one of its logits is not finite.  logits (N,V) f32, choices
  // (N,5) f32 with a SamplingRow each, tokens (N) i32. Columns are ordered by falling logit, and by rising number among
  // equals; their masses are p = exp((l - max)/temperature). Kept are the first top_k of those with p >= min_p; the
  // nucleus is the fewest first ones of them whose mass reaches top_p·(the mass of those kept); chosen is the first
  // whose mass, with all before it, exceeds uniform·(the nucleus' mass). Source: Holtzman et al. 2020 (top-p); Nguyen
  // et al. 2024 (min-p); the order in which the limits apply is vLLM's.
  void sample(Tensor logits, Tensor choices, Tensor tokens);
  // l = logits[row][token] becomes l' - subtracted, l' = (l + bias)/repetition where l + bias > 0, else ·repetition.
  // logits (N,V) f32; places (M,2) i32 {row, token}, each at most once; changes (M,3) f32 {bias, repetition,
  // subtracted}. Source: Keskar et al. 2019 (repetition); OpenAI's frequency and presence penalties are subtracted.
  void penalize(Tensor logits, Tensor places, Tensor changes);
  // Row rows[i] of logits keeps the columns v whose bit v%32 of bits[i][v/32] is 1; the others become kForbiddenLogit,
  // unless they are not finite: what was wrong stays to be seen. logits (N,V) f32; rows (M) i32, each at most once;
  // bits (M, ⌈V/32⌉) i32. With any temperature below 1e35 `sample` gives such a column no mass, and takes it only in a
  // row that has nothing else.
  void allow(Tensor logits, Tensor rows, Tensor bits);
  // ln softmax(logits): values[i] of column tokens[i], and the k largest with their columns, in sample's order.
  // logits (N,V) f32; tokens (N) i32; values (N) f32; top (N,k) i32 and top_values (N,k) f32, k <= V, may be empty. A
  // row with a logit that is not finite gives NaN and -1.
  void log_probabilities(Tensor logits, Tensor tokens, Tensor values, Tensor top, Tensor top_values);

  // --- optimizer ---------------------------------------------------------------------------------
  // Both accumulate in fp64 in a fixed order; x, y (n) f32, sum (1) f64.
  void sum_squares(Tensor x, Tensor sum);    // sum[0] += Σ x[i]²
  void dot(Tensor x, Tensor y, Tensor sum);  // sum[0] += Σ x[i]·y[i]
  // factor[0] = min(1, max_norm/(√sum + 1e-6)); 1 where max_norm <= 0; NaN where sum is not finite, and where factor[0]
  // was NaN before: it stays so.
  void clip_factor(Tensor sum, float max_norm, Tensor factor);
  // Nothing is updated where factor[0] is not finite, so that steps can be enqueued before anybody has looked at a
  // norm. torch's AdamW order: p -= lr·wd·p; m, v updated; p -= lr/(1-β1ᵗ)·m/(√v/√(1-β2ᵗ) + eps).  p, g, m, v (n) f32;
  // g is multiplied by factor[0]. Source: Loshchilov & Hutter 2019; torch.optim.AdamW.
  void adamw(const AdamW& settings, Tensor factor, Tensor g, Tensor p, Tensor m, Tensor v);

 protected:
  DROVER_COMPOSED_OPS(DROVER_COMPOSED_KERNEL)
  virtual std::unique_ptr<Reading> do_read_later(Tensor from);                     // unless overridden, `download`
  virtual std::unique_ptr<Transfer> do_start_upload(const void* host, Tensor to);  // unless overridden, `upload`

 private:
  DROVER_OPS(DROVER_KERNEL)

  class Observed;
  template <typename Describe, typename Run>
  void issue(Describe describe, Run run);

  OpObserver* observer_ = nullptr;
  OpCall* running_ = nullptr;  // the call that is being carried out, for the observer
};

}  // namespace drover
