// Attention's gradients in tiles, p recomputed from lse:
//   ds = p∘(dO·Vᵀ - delta),  dq = scale·ds·K,  dk = scale·dsᵀ·Q,  dv = pᵀ·dO,  delta = Σ dO∘O.
// One kernel takes query tiles and writes dq, another takes key tiles and walks over the heads of the group and their
// query tiles: every sum is one thread's, in one order, and delta is formed where it is needed, so there is no
// workspace. Source: Dao 2023 (FlashAttention-2).
#include "kernels/cuda/attention_tile.h"

namespace drover::cuda {

namespace {

template <typename T>
struct Given {
  Rows<const T> o, d_o;
  Rows<const float> lse;
};

// Σ dO∘O of row y + 16·i, for the 16 threads of that row.
template <typename T>
__device__ inline float delta_of(const T* d_o, const T* o, bool inside, int head_dim, bool packed) {
  float sum = 0;
  for (int column = threadIdx.x % kSide * kGroup; inside && column < head_dim; column += kSide * kGroup) {
    float u[kGroup], v[kGroup];
    load_group(d_o + column, head_dim - column, packed, u);
    load_group(o + column, head_dim - column, packed, v);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) sum = fmaf(u[j], v[j], sum);
  }
  return row_sum(sum);
}

template <int Columns, typename T>
__global__ void __launch_bounds__(kTileThreads)
    query_gradient_kernel(AttentionOperands<T> a, Given<T> given, Rows<T> dq) {
  const AttentionTask task = a.tasks[blockIdx.x / a.heads];
  const int head = blockIdx.x % a.heads, e = a.head_dim, x = threadIdx.x % kSide, y = threadIdx.x / kSide;
  const int64_t column = int64_t{head} * e, kv_column = int64_t{head / a.group} * e, first_row = task.q0 + task.first;
  const int queries = smaller(kTile, task.nq - task.first), keys = seen_by(task, task.first + queries - 1);
  float* q_tile = reinterpret_cast<float*>(dynamic_shared());
  float* d_o_tile = q_tile + kTile * tile_pitch(e);
  float* kv_tile = d_o_tile + kTile * tile_pitch(e);
  float* ds_tile = kv_tile + kTile * tile_pitch(e);

  load_tile([&](int i) { return a.q(first_row + i, column); }, queries, e, a.packed, a.scale, q_tile);
  load_tile([&](int i) { return given.d_o(first_row + i, column); }, queries, e, a.packed, 1.0f, d_o_tile);
  float lse[kShare], delta[kShare];
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    const int at = y + kSide * i;
    const int64_t row = first_row + at;
    lse[i] = at < queries ? *given.lse(row, head) : 0.0f;
    delta[i] = delta_of(given.d_o(row, column), given.o(row, column), at < queries, e, a.packed);
  }
  Accumulator<Columns> sum;

  for (int first = 0; first < keys; first += kTile) {
    const int count = smaller(kTile, keys - first);
    const auto row = [&](int j) { return task.k0 + first + j; };
    float p[kShare][kShare], ds[kShare][kShare];
    __syncthreads();  // the keys before are done with
    load_tile([&](int j) { return a.v(row(j), kv_column); }, count, e, a.packed, 1.0f, kv_tile);
    __syncthreads();
    dot_tiles(d_o_tile, kv_tile, e, ds);
    __syncthreads();
    load_tile([&](int j) { return a.k(row(j), kv_column); }, count, e, a.packed, 1.0f, kv_tile);
    __syncthreads();
    dot_tiles(q_tile, kv_tile, e, p);
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const int at = y + kSide * i, seen = at < queries ? seen_by(task, task.first + at) - first : 0;
#pragma unroll
      for (int j = 0; j < kShare; ++j)
        ds[i][j] = x + kSide * j < seen ? expf(p[i][j] - lse[i]) * (ds[i][j] - delta[i]) : 0.0f;
    }
    store_scores(ds, ds_tile);
    __syncwarp();
    add_product(ds_tile, kv_tile, count, e, sum);
  }
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    const int at = y + kSide * i;
    if (at < queries) write_row(sum, i, a.scale, e, a.packed, dq(first_row + at, column));
  }
}

// The scores are transposed here: a thread's rows are keys, its columns queries.
template <int Columns, typename T>
__global__ void __launch_bounds__(kTileThreads)
    key_gradient_kernel(AttentionOperands<T> a, Given<T> given, Rows<T> dk, Rows<T> dv) {
  __shared__ float lse[kTile], delta[kTile];
  const int kv_heads = a.heads / a.group;
  const AttentionTask task = a.tasks[blockIdx.x / kv_heads];
  const int kv_head = blockIdx.x % kv_heads, e = a.head_dim, x = threadIdx.x % kSide, y = threadIdx.x / kSide;
  const int64_t kv_column = int64_t{kv_head} * e, first_key_row = task.k0 + task.first;
  const int keys = smaller(kTile, task.nk - task.first);
  float* k_tile = reinterpret_cast<float*>(dynamic_shared());
  float* v_tile = k_tile + kTile * tile_pitch(e);
  float* q_tile = v_tile + kTile * tile_pitch(e);  // q, then dO, then q again
  float* weights = q_tile + kTile * tile_pitch(e);

  load_tile([&](int j) { return a.k(first_key_row + j, kv_column); }, keys, e, a.packed, 1.0f, k_tile);
  load_tile([&](int j) { return a.v(first_key_row + j, kv_column); }, keys, e, a.packed, 1.0f, v_tile);
  Accumulator<Columns> key_sum, value_sum;

  const int64_t first_seeing = task.first - task.offset;  // the query that sees the tile's first key first
  const int begin = first_seeing <= 0         ? 0
                    : first_seeing >= task.nq ? task.nq
                                              : static_cast<int>(first_seeing) / kTile * kTile;
  for (int head = kv_head * a.group; head < (kv_head + 1) * a.group; ++head) {
    const int64_t column = int64_t{head} * e;
    for (int first = begin; first < task.nq; first += kTile) {
      const int queries = smaller(kTile, task.nq - first);
      const int64_t first_row = task.q0 + first;
      const auto q_row = [&](int i) { return a.q(first_row + i, column); };
      float p[kShare][kShare], ds[kShare][kShare];
      __syncthreads();  // the queries before are done with
      load_tile(q_row, queries, e, a.packed, a.scale, q_tile);
#pragma unroll
      for (int i = 0; i < kShare; ++i) {
        const int at = y + kSide * i;
        const int64_t row = first_row + at;
        const float sum = delta_of(given.d_o(row, column), given.o(row, column), at < queries, e, a.packed);
        if (x == 0) delta[at] = sum, lse[at] = at < queries ? *given.lse(row, head) : 0.0f;
      }
      __syncthreads();
      dot_tiles(k_tile, q_tile, e, p);
      __syncthreads();
      load_tile([&](int i) { return given.d_o(first_row + i, column); }, queries, e, a.packed, 1.0f, q_tile);
#pragma unroll
      for (int j = 0; j < kShare; ++j) {
        const int query = x + kSide * j, seen = query < queries ? seen_by(task, first + query) - task.first : 0;
#pragma unroll
        for (int i = 0; i < kShare; ++i) p[i][j] = y + kSide * i < seen ? expf(p[i][j] - lse[query]) : 0.0f;
      }
      store_scores(p, weights);
      __syncthreads();
      add_product(weights, q_tile, queries, e, value_sum);
      dot_tiles(v_tile, q_tile, e, ds);
      __syncthreads();
      load_tile(q_row, queries, e, a.packed, a.scale, q_tile);
#pragma unroll
      for (int j = 0; j < kShare; ++j) {
#pragma unroll
        for (int i = 0; i < kShare; ++i) ds[i][j] = p[i][j] != 0 ? p[i][j] * (ds[i][j] - delta[x + kSide * j]) : 0.0f;
      }
      store_scores(ds, weights);
      __syncthreads();
      add_product(weights, q_tile, queries, e, key_sum);
    }
  }
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    const int at = y + kSide * i;
    if (at >= keys) continue;
    write_row(key_sum, i, 1.0f, e, a.packed, dk(first_key_row + at, kv_column));  // q was loaded with the scale in it
    write_row(value_sum, i, 1.0f, e, a.packed, dv(first_key_row + at, kv_column));
  }
}

}  // namespace

void attention_backward(cudaStream_t stream, const AttentionCall& call, const AttentionGradients& gradients,
                        const AttentionTasks& tasks) {
  const int64_t e = call.shape.head_dim;
  const size_t shared = 3 * tile_bytes(e) + kScoreBytes;
  with_type(call.q, [&](auto* typed) {
    using T = element<decltype(typed)>;
    const auto operands = [&](const AttentionTask* of) {
      return operands_of<T>(call, of, tasks.tables, {call.o, gradients.d_o, gradients.dq, gradients.dk, gradients.dv});
    };
    const Given<T> given{rows_of<const T>(call.o), rows_of<const T>(gradients.d_o), rows_of<const float>(call.lse)};
    with_columns(e, [&](auto columns) {
      launch("attention_backward_queries", query_gradient_kernel<columns(), T>,
             grid_of((tasks.tiles + tasks.single_rows) * call.shape.heads), kTileThreads, shared, stream,
             operands(tasks.queries), given, rows_of<T>(gradients.dq));
      launch("attention_backward_keys", key_gradient_kernel<columns(), T>,
             grid_of(tasks.key_tiles * call.shape.kv_heads), kTileThreads, shared, stream, operands(tasks.keys), given,
             rows_of<T>(gradients.dk), rows_of<T>(gradients.dv));
    });
  });
}

}  // namespace drover::cuda
