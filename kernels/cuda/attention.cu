// Attention forward in tiles of 64 queries × 64 keys with an online softmax: a block takes one query tile of one head,
// and walks over the keys it sees. Keys and values take turns in one tile of shared memory. Source: Dao 2023
// (FlashAttention-2).
#include "kernels/cuda/attention_tile.h"

namespace drover::cuda {

namespace {

template <int Columns, typename T>
__global__ void __launch_bounds__(kTileThreads) attention_kernel(AttentionOperands<T> a, Rows<T> o, Rows<float> lse) {
  const AttentionTask task = a.tasks[blockIdx.x / a.heads];
  const int head = blockIdx.x % a.heads, e = a.head_dim, x = threadIdx.x % kSide, y = threadIdx.x / kSide;
  const int64_t column = int64_t{head} * e, kv_column = int64_t{head / a.group} * e;
  const int queries = smaller(kTile, task.nq - task.first), keys = seen_by(task, task.first + queries - 1);
  float* q_tile = reinterpret_cast<float*>(dynamic_shared());
  float* kv_tile = q_tile + kTile * tile_pitch(e);
  float* weights = kv_tile + kTile * tile_pitch(e);

  load_tile([&](int i) { return a.q(task.q0 + task.first + i, column); }, queries, e, a.packed, a.scale, q_tile);
  Accumulator<Columns> sum;
  float highest[kShare], total[kShare];
#pragma unroll
  for (int i = 0; i < kShare; ++i) highest[i] = -INFINITY, total[i] = 0;

  for (int first = 0; first < keys; first += kTile) {
    const int count = smaller(kTile, keys - first);
    const auto row = [&](int j) { return key_row(task, a.tables, a.block_size, first + j); };
    float s[kShare][kShare];
    __syncthreads();  // the values before are done with
    load_tile([&](int j) { return a.k(row(j), kv_column); }, count, e, a.packed, 1.0f, kv_tile);
    __syncthreads();
    dot_tiles(q_tile, kv_tile, e, s);
    __syncthreads();
    load_tile([&](int j) { return a.v(row(j), kv_column); }, count, e, a.packed, 1.0f, kv_tile);

#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const int seen = seen_by(task, task.first + y + kSide * i) - first;
      float most = highest[i];
#pragma unroll
      for (int j = 0; j < kShare; ++j) {
        if (x + kSide * j < seen) most = fmaxf(most, s[i][j]);
      }
      most = row_max(most);
      const float shift = most == -INFINITY ? 0.0f : most, keep = expf(highest[i] - shift);
      highest[i] = most;
      total[i] *= keep;
      sum.scale_row(i, keep);
#pragma unroll
      for (int j = 0; j < kShare; ++j) {
        s[i][j] = x + kSide * j < seen ? expf(s[i][j] - shift) : 0.0f;
        total[i] += s[i][j];
      }
    }
    store_scores(s, weights);
    __syncthreads();
    add_product(weights, kv_tile, count, e, sum);
  }

#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    const float l = row_sum(total[i]);  // 0 where nothing was seen; NaN passes through
    const int at = y + kSide * i;
    if (at >= queries) continue;
    const int64_t row = task.q0 + task.first + at;
    write_row(sum, i, l != 0 ? 1.0f / l : 0.0f, e, a.packed, o(row, column));
    if (x == 0) *lse(row, head) = l != 0 ? highest[i] + logf(l) : -INFINITY;
  }
}

}  // namespace

void attention_tiles(cudaStream_t stream, const AttentionCall& call, const AttentionTasks& tasks) {
  const int64_t e = call.shape.head_dim;
  with_type(call.q, [&](auto* typed) {
    using T = element<decltype(typed)>;
    AttentionOperands<T> operands = operands_of<T>(call, tasks.queries, tasks.tables, {call.o});
    with_columns(e, [&](auto columns) {
      launch("attention", attention_kernel<columns(), T>, grid_of(tasks.tiles * call.shape.heads), kTileThreads,
             2 * tile_bytes(e) + kScoreBytes, stream, operands, rows_of<T>(call.o), rows_of<float>(call.lse));
    });
  });
}

}  // namespace drover::cuda
