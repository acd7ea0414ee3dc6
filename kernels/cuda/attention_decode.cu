// Attention of single query rows: a block takes the heads that share a kv head in one sequence, up to eight of them, so
// that a key is read once for all, and kDecodeKeys of the sequence's keys. Its 16 teams of 16 threads take every 16th
// key each, several at a time, with an online softmax of their own, and are merged in order. Where a sequence has more
// keys, the last of its blocks to end merges what the blocks left, in the keys' order. A row's sums run alike whatever
// else is in the batch, and however its tensors are aligned. Source: Dao et al. 2023 (Flash-Decoding).
#include "kernels/cuda/attention_tile.h"

namespace drover::cuda {

namespace {

constexpr int kTeam = 16;
constexpr int kTeams = 16;
constexpr int kThreads = kTeam * kTeams;
constexpr int kWidth = kTeam * kGroup;  // columns that a team has at once
static_assert(kThreads >= kMostHeadDim, "a thread for every column of a merged row");

// Columns begin, begin+1, … of a head's row, as they lie in memory. Aligned, a thread whose columns lie behind the head
// reads its first ones: loads without a condition are all under way before the first is waited for.
template <bool Aligned, typename T>
struct Columns {
  Packed<kGroup, T> held;
  __device__ void load(const T* head, int begin, int head_dim) {
    load_packed(head + (begin < head_dim ? begin : 0), held);
  }
  __device__ void values(float (&to)[kGroup]) const { unpack(held, to); }
};
template <typename T>
struct Columns<false, T> {
  float held[kGroup];
  __device__ void load(const T* head, int begin, int head_dim) {
    load_group(head + begin, head_dim - begin, false, held);
  }
  __device__ void values(float (&to)[kGroup]) const {
#pragma unroll
    for (int j = 0; j < kGroup; ++j) to[j] = held[j];
  }
};

// A row of a head, or what a block of its keys came to: Σ exp(s - highest) and Σ exp(s - highest)·v, a thread a column.
struct Part {
  float highest, total, value;
};

// Σ over parts 0..count-1, which part(i) gives, in order.
template <typename Get>
__device__ inline Part merged(int count, Get&& part) {
  Part all{-INFINITY, 0, 0};
  for (int i = 0; i < count; ++i) all.highest = fmaxf(all.highest, part(i).highest);
  const float shift = all.highest == -INFINITY ? 0.0f : all.highest;
  for (int i = 0; i < count; ++i) {
    const Part one = part(i);
    const float w = expf(one.highest - shift);
    all.total = fmaf(w, one.total, all.total);
    all.value = fmaf(w, one.value, all.value);
  }
  return all;
}

template <typename T>
__device__ inline void store_row(const Part& row, T* o, float* lse) {
  store_float(o, row.total != 0 ? row.value * (1.0f / row.total) : 0.0f);
  if (threadIdx.x == 0) *lse = row.total != 0 ? row.highest + logf(row.total) : -INFINITY;
}

constexpr int keys_in_flight(int columns) { return columns <= 2 ? 4 : 2; }

// A thread has columns 128·g + 8·lane + j of a key.
template <bool Aligned, int Groups, int Heads, typename T>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(AttentionOperands<T> a, int chunks, DecodeParts parts, Rows<T> o, Rows<float> lse) {
  constexpr int kKeys = keys_in_flight(Groups * Heads);
  __shared__ float part[kTeams][Groups * kWidth];
  __shared__ float part_highest[kTeams], part_total[kTeams];
  __shared__ bool last;
  const AttentionTask task = a.tasks[blockIdx.x / chunks];
  const int e = a.head_dim, lane = threadIdx.x % kTeam, team = threadIdx.x / kTeam, column = threadIdx.x;
  const int chunk = blockIdx.x % chunks, chunks_of_kv = (a.group + Heads - 1) / Heads, kv = chunk / chunks_of_kv;
  const int first_head = kv * a.group + chunk % chunks_of_kv * Heads,
            heads = smaller(Heads, (kv + 1) * a.group - first_head);
  const int keys = seen_by(task, 0), begin = static_cast<int>(blockIdx.y) * kDecodeKeys,
            end = smaller(keys, begin + kDecodeKeys);
  if (begin > 0 && begin >= keys) return;

  float q[Heads][Groups][kGroup], sum[Heads][Groups][kGroup] = {}, highest[Heads], total[Heads] = {};
#pragma unroll
  for (int h = 0; h < Heads; ++h) {
    highest[h] = -INFINITY;
#pragma unroll
    for (int g = 0; g < Groups; ++g) {
      Columns<Aligned, T> row;  // past the last head the last one is read again, and nothing is stored
      row.load(a.q(task.q0, int64_t{first_head + smaller(h, heads - 1)} * e), g * kWidth + lane * kGroup, e);
      row.values(q[h][g]);
#pragma unroll
      for (int j = 0; j < kGroup; ++j) q[h][g][j] *= a.scale;
    }
  }

#pragma unroll 1
  for (int first = begin + team; first - team < end; first += kTeams * kKeys) {
    Columns<Aligned, T> k[kKeys][Groups], v[kKeys][Groups];
    float s[kKeys][Heads];
#pragma unroll
    for (int u = 0; u < kKeys; ++u) {
      const int64_t row = key_row(task, a.tables, a.block_size, smaller(first + u * kTeams, keys - 1));
#pragma unroll
      for (int g = 0; g < Groups; ++g) {
        k[u][g].load(a.k(row, int64_t{kv} * e), g * kWidth + lane * kGroup, e);
        v[u][g].load(a.v(row, int64_t{kv} * e), g * kWidth + lane * kGroup, e);
      }
    }
#pragma unroll
    for (int u = 0; u < kKeys; ++u) {
      float dot[Heads] = {};
#pragma unroll
      for (int g = 0; g < Groups; ++g) {
        float key[kGroup];
        k[u][g].values(key);
#pragma unroll
        for (int h = 0; h < Heads; ++h) {
          float piece = 0;
#pragma unroll
          for (int j = 0; j < kGroup; ++j) piece = fmaf(q[h][g][j], key[j], piece);
          if (g * kWidth + lane * kGroup < e) dot[h] += piece;
        }
      }
#pragma unroll
      for (int h = 0; h < Heads; ++h) s[u][h] = row_sum(dot[h]);
    }
#pragma unroll
    for (int h = 0; h < Heads; ++h) {
      float most = highest[h];
#pragma unroll
      for (int u = 0; u < kKeys; ++u) {
        if (first + u * kTeams < end) most = fmaxf(most, s[u][h]);
      }
      const float shift = most == -INFINITY ? 0.0f : most, keep = expf(highest[h] - shift);
      highest[h] = most;
      total[h] *= keep;
#pragma unroll
      for (int g = 0; g < Groups; ++g) {
#pragma unroll
        for (int j = 0; j < kGroup; ++j) sum[h][g][j] *= keep;
      }
#pragma unroll
      for (int u = 0; u < kKeys; ++u) {
        s[u][h] = expf(s[u][h] - shift);
        if (first + u * kTeams < end) total[h] += s[u][h];
      }
    }
#pragma unroll
    for (int u = 0; u < kKeys; ++u) {
      if (first + u * kTeams >= end) continue;
#pragma unroll
      for (int g = 0; g < Groups; ++g) {
        float value[kGroup];
        v[u][g].values(value);
#pragma unroll
        for (int h = 0; h < Heads; ++h) {
#pragma unroll
          for (int j = 0; j < kGroup; ++j) sum[h][g][j] = fmaf(s[u][h], value[j], sum[h][g][j]);
        }
      }
    }
  }

  const int blocks = keys <= kDecodeKeys ? 1 : (keys + kDecodeKeys - 1) / kDecodeKeys;
  const auto left_by = [&](int block, int head) {
    return parts.values + (int64_t{task.part + block} * a.heads + head) * (e + 2);
  };
#pragma unroll
  for (int h = 0; h < Heads; ++h) {
    if (h >= heads) break;
    const int head = first_head + h;
    if (h > 0) __syncthreads();  // the head before is merged
#pragma unroll
    for (int g = 0; g < Groups; ++g) store_pack(&part[team][g * kWidth + lane * kGroup], sum[h][g]);
    if (lane == 0) part_highest[team] = highest[h], part_total[team] = total[h];
    __syncthreads();
    if (column >= e) continue;
    const Part row = merged(kTeams, [&](int t) { return Part{part_highest[t], part_total[t], part[t][column]}; });
    if (blocks == 1) {
      store_row(row, o(task.q0, int64_t{head} * e + column), lse(task.q0, head));
      continue;
    }
    float* const to = left_by(static_cast<int>(blockIdx.y), head);
    to[2 + column] = row.value;
    if (column == 0) to[0] = row.highest, to[1] = row.total;
  }
  if (blocks == 1) return;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(&parts.ended[blockIdx.x], 1u) + 1 == static_cast<unsigned>(blocks);
    if (last) parts.ended[blockIdx.x] = 0;
  }
  __syncthreads();
  if (!last || column >= e) return;
  __threadfence();
  for (int head = first_head; head < first_head + heads; ++head) {
    const Part row = merged(blocks, [&](int block) {
      const float* from = left_by(block, head);
      return Part{__ldcg(from), __ldcg(from + 1), __ldcg(from + 2 + column)};
    });
    store_row(row, o(task.q0, int64_t{head} * e + column), lse(task.q0, head));
  }
}

// Calls f with the numbers of 128 columns that a head has and of heads that a block takes.
template <typename F>
void with_heads(int64_t group, int64_t head_dim, F&& f) {
  constexpr std::integral_constant<int, 1> one;
  constexpr std::integral_constant<int, 2> two;
  constexpr std::integral_constant<int, 4> four;
  constexpr std::integral_constant<int, 8> eight;
  if (head_dim > kWidth) return group == 1 ? f(two, one) : f(two, four);
  if (group == 1) return f(one, one);
  group <= 4 ? f(one, four) : f(one, eight);
}

}  // namespace

int64_t decode_chunks(const AttentionShape& shape) {
  const int64_t group = shape.heads / shape.kv_heads;
  int64_t chunks = 0;
  with_heads(group, shape.head_dim,
             [&](auto, auto heads) { chunks = shape.kv_heads * ((group + heads() - 1) / heads()); });
  return chunks;
}

void attention_decode(cudaStream_t stream, const AttentionCall& call, const AttentionTasks& tasks,
                      const DecodeParts& parts) {
  const AttentionShape& shape = call.shape;
  const dim3 grid(grid_of(tasks.single_rows * decode_chunks(shape)),
                  grid_of(std::max<int64_t>(tasks.decode_blocks, 1)));
  with_type(call.q, [&](auto* typed) {
    using T = element<decltype(typed)>;
    const AttentionOperands<T> operands = operands_of<T>(call, tasks.queries + tasks.tiles, tasks.tables, {});
    with_heads(shape.heads / shape.kv_heads, shape.head_dim, [&](auto groups, auto heads) {
      const auto kernel =
          operands.packed ? decode_kernel<true, groups(), heads(), T> : decode_kernel<false, groups(), heads(), T>;
      launch("attention_decode", kernel, grid, kThreads, 0, stream, operands, static_cast<int>(decode_chunks(shape)),
             parts, rows_of<T>(call.o), rows_of<float>(call.lse));
    });
  });
}

}  // namespace drover::cuda
