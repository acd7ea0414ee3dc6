// Attention of one query row: a block takes one head of one sequence, and its 32 teams of 16 threads take every 32nd
// key each, several at a time, with an online softmax of their own. At the end the teams are merged in order. A row's
// sums run alike whatever else is in the batch, and however its tensors are aligned.
#include "kernels/cuda/attention_tile.h"

namespace drover::cuda {

namespace {

constexpr int kTeam = 16;
constexpr int kTeams = 32;

// Columns begin, begin+1, … of a head's row. Packed, a thread whose columns lie behind the head reads its first ones:
// loads without a condition are all under way before the first is waited for.
template <bool Packed, typename T>
__device__ inline void load_columns(const T* head, int begin, int head_dim, float (&to)[kGroup]) {
  if constexpr (Packed) {
    load_pack(head + (begin < head_dim ? begin : 0), to);
  } else {
    load_group(head + begin, head_dim - begin, false, to);
  }
}

// A thread has columns 128·g + 8·lane + j of a key.
template <bool Packed, int Groups, typename T>
__global__ void __launch_bounds__(kTeam* kTeams) decode_kernel(AttentionOperands<T> a, Rows<T> o, Rows<float> lse) {
  constexpr int kWidth = kTeam * kGroup, kKeys = 4 / Groups;  // kKeys: in flight
  __shared__ float part[kTeams][Groups * kWidth];
  __shared__ float part_highest[kTeams], part_total[kTeams];
  const AttentionTask task = a.tasks[blockIdx.x / a.heads];
  const int head = blockIdx.x % a.heads, e = a.head_dim, lane = threadIdx.x % kTeam, team = threadIdx.x / kTeam;
  const int64_t column = int64_t{head} * e, kv_column = int64_t{head / a.group} * e;
  const int keys = seen_by(task, 0);

  float q[Groups][kGroup], sum[Groups][kGroup] = {}, highest = -INFINITY, total = 0;
#pragma unroll
  for (int g = 0; g < Groups; ++g) {
    const int begin = g * kWidth + lane * kGroup;
    load_columns<Packed>(a.q(task.q0, column), begin, e, q[g]);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) q[g][j] *= a.scale;
  }

  for (int first = 0; first < keys; first += kTeams * kKeys) {
    float k[kKeys][Groups][kGroup], v[kKeys][Groups][kGroup], s[kKeys];
#pragma unroll
    for (int u = 0; u < kKeys; ++u) {
      const int64_t row = key_row(task, a.tables, a.block_size, smaller(first + u * kTeams + team, keys - 1));
#pragma unroll
      for (int g = 0; g < Groups; ++g) {
        const int begin = g * kWidth + lane * kGroup;
        load_columns<Packed>(a.k(row, kv_column), begin, e, k[u][g]);
        load_columns<Packed>(a.v(row, kv_column), begin, e, v[u][g]);
      }
    }
    float most = highest;
#pragma unroll
    for (int u = 0; u < kKeys; ++u) {
      float dot = 0;
#pragma unroll
      for (int g = 0; g < Groups; ++g) {
        float piece = 0;
#pragma unroll
        for (int j = 0; j < kGroup; ++j) piece = fmaf(q[g][j], k[u][g][j], piece);
        if (g * kWidth + lane * kGroup < e) dot += piece;
      }
      s[u] = row_sum(dot);
      if (first + u * kTeams + team < keys) most = fmaxf(most, s[u]);
    }
    const float shift = most == -INFINITY ? 0.0f : most, keep = expf(highest - shift);
    highest = most;
    total *= keep;
#pragma unroll
    for (int g = 0; g < Groups; ++g) {
#pragma unroll
      for (int j = 0; j < kGroup; ++j) sum[g][j] *= keep;
    }
#pragma unroll
    for (int u = 0; u < kKeys; ++u) {
      if (first + u * kTeams + team >= keys) continue;
      const float w = expf(s[u] - shift);
      total += w;
#pragma unroll
      for (int g = 0; g < Groups; ++g) {
#pragma unroll
        for (int j = 0; j < kGroup; ++j) sum[g][j] = fmaf(w, v[u][g][j], sum[g][j]);
      }
    }
  }

#pragma unroll
  for (int g = 0; g < Groups; ++g) store_pack(&part[team][g * kWidth + lane * kGroup], sum[g]);
  if (lane == 0) part_highest[team] = highest, part_total[team] = total;
  __syncthreads();
  const int c = threadIdx.x;
  if (c >= e) return;
  float most = -INFINITY, l = 0, value = 0;
  for (int t = 0; t < kTeams; ++t) most = fmaxf(most, part_highest[t]);
  const float shift = most == -INFINITY ? 0.0f : most;
  for (int t = 0; t < kTeams; ++t) {
    const float w = expf(part_highest[t] - shift);
    l = fmaf(w, part_total[t], l);
    value = fmaf(w, part[t][c], value);
  }
  store_float(o(task.q0, column + c), l != 0 ? value * (1.0f / l) : 0.0f);
  if (c == 0) *lse(task.q0, head) = l != 0 ? most + logf(l) : -INFINITY;
}

}  // namespace

void attention_decode(cudaStream_t stream, const AttentionCall& call, const AttentionTasks& tasks) {
  with_type(call.q, [&](auto* typed) {
    using T = element<decltype(typed)>;
    const AttentionOperands<T> operands = operands_of<T>(call, tasks.queries + tasks.tiles, tasks.tables, {});
    const bool narrow = call.shape.head_dim <= kTeam * kGroup;
    const auto kernel = operands.packed ? (narrow ? decode_kernel<true, 1, T> : decode_kernel<true, 2, T>)
                                        : (narrow ? decode_kernel<false, 1, T> : decode_kernel<false, 2, T>);
    launch("attention_decode", kernel, grid_of(tasks.single_rows * call.shape.heads), kTeam * kTeams, 0, stream,
           operands, rows_of<T>(call.o), rows_of<float>(call.lse));
  });
}

}  // namespace drover::cuda
