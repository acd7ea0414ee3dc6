// What attention's kernels share: rows of heads, tiles of 64 rows in shared memory as fp32, and the products of two
// tiles in registers. A block of 256 threads is 16 × 16: a thread has rows y, y+16, … of a tile's product, and columns
// x, x+16, … or four neighbours of every 64.
#pragma once
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/device.h"

namespace drover::cuda {

inline constexpr int kTile = kAttentionTile;
inline constexpr int kSide = 16;  // threads of a block in x and in y
inline constexpr int kTileThreads = kSide * kSide;
inline constexpr int kShare = kTile / kSide;  // rows of a thread
inline constexpr int kScorePitch =
    kTile + 4;                    // an odd number of 16-byte words, so that neighbouring rows lie in other banks
inline constexpr int kGroup = 8;  // elements that a thread loads at once

template <typename T>
struct Rows {
  T* data;
  int64_t pitch;
  __device__ T* operator()(int64_t row, int64_t column) const { return data + row * pitch + column; }
};
template <typename T>
Rows<T> rows_of(Tensor t) {
  return {t.as<std::remove_const_t<T>>(), t.pitch};
}

template <typename T>
struct AttentionOperands {
  Rows<const T> q, k, v;
  const AttentionTask* tasks;
  const int32_t* tables;
  int block_size, heads, group, head_dim;  // group: query heads of a kv head
  float scale;
  bool packed;  // every head's rows are whole groups on 16-byte boundaries
};

template <typename T>
AttentionOperands<T> operands_of(const AttentionCall& call, const AttentionTask* tasks, const int32_t* tables,
                                 std::initializer_list<Tensor> others) {
  const AttentionShape& shape = call.shape;
  const auto lies_packed = [](const Tensor& t) {
    return reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && t.pitch * size_of(t.dtype) % 16 == 0;
  };
  const Tensor read[] = {call.q, call.kv.k, call.kv.v};
  const bool packed = shape.head_dim % kGroup == 0 && std::all_of(std::begin(read), std::end(read), lies_packed) &&
                      std::all_of(others.begin(), others.end(), lies_packed);
  return {.q = rows_of<const T>(call.q),
          .k = rows_of<const T>(call.kv.k),
          .v = rows_of<const T>(call.kv.v),
          .tasks = tasks,
          .tables = tables,
          .block_size = static_cast<int>(call.kv.block_size),
          .heads = static_cast<int>(shape.heads),
          .group = static_cast<int>(shape.heads / shape.kv_heads),
          .head_dim = static_cast<int>(shape.head_dim),
          .scale = shape.scale,
          .packed = packed};
}

// Calls f with the columns that a thread may have to hold, as a constant: 64, 128 or 256.
template <typename F>
void with_columns(int64_t head_dim, F&& f) {
  if (head_dim <= 64) return f(std::integral_constant<int, 64>{});
  if (head_dim <= 128) return f(std::integral_constant<int, 128>{});
  f(std::integral_constant<int, 256>{});
}

// Floats from one row of a tile in shared memory to the next: an odd number of 16-byte words.
__host__ __device__ inline int tile_pitch(int head_dim) { return (head_dim + kGroup - 1) / kGroup * kGroup + 4; }
inline size_t tile_bytes(int64_t head_dim) {
  return static_cast<size_t>(kTile * tile_pitch(static_cast<int>(head_dim))) * sizeof(float);
}
inline constexpr size_t kScoreBytes = size_t{kTile} * kScorePitch * sizeof(float);

__device__ inline int smaller(int a, int b) { return a < b ? a : b; }

__device__ inline int64_t key_row(const AttentionTask& task, const int32_t* tables, int block_size, int position) {
  if (task.table < 0) return task.k0 + position;
  return int64_t{tables[task.table + position / block_size]} * block_size + position % block_size;
}
// How many of the segment's keys its query row sees.
__device__ inline int seen_by(const AttentionTask& task, int row) {
  const int64_t seen = row + task.offset + 1;
  return seen < 0 ? 0 : seen > task.nk ? task.nk : static_cast<int>(seen);
}

// The first `left` elements of a group; the others are zero.
template <typename T>
__device__ inline void load_group(const T* from, int left, bool packed, float (&to)[kGroup]) {
  if (packed && left > 0) {
    load_pack(from, to);
  } else {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) to[i] = i < left ? load_float(from + i) : 0.0f;
  }
}

// tile[i] = factor·row(i) for i < rows and 0 for the others up to kTile. row(i): where that row's head begins.
template <typename Row>
__device__ inline void load_tile(Row&& row, int rows, int head_dim, bool packed, float factor, float* tile) {
  const int groups = (head_dim + kGroup - 1) / kGroup, pitch = tile_pitch(head_dim);
  for (int at = threadIdx.x; at < kTile * groups; at += kTileThreads) {
    const int i = at / groups, column = at % groups * kGroup;
    float v[kGroup] = {};
    if (i < rows) load_group(row(i) + column, head_dim - column, packed, v);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) v[j] *= factor;
    store_pack(tile + i * pitch + column, v);
  }
}

// s[i][j] = a[y + 16·i]·b[x + 16·j], over rows of two tiles.
__device__ inline void dot_tiles(const float* a, const float* b, int head_dim, float (&s)[kShare][kShare]) {
  const int x = threadIdx.x % kSide, y = threadIdx.x / kSide, pitch = tile_pitch(head_dim);
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
#pragma unroll
    for (int j = 0; j < kShare; ++j) s[i][j] = 0;
  }
#pragma unroll 1
  for (int column = 0; column < head_dim; column += 4) {
    float u[kShare][4], v[kShare][4];
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      load_pack(a + (y + kSide * i) * pitch + column, u[i]);
      load_pack(b + (x + kSide * i) * pitch + column, v[i]);
    }
#pragma unroll
    for (int l = 0; l < 4; ++l) {
#pragma unroll
      for (int i = 0; i < kShare; ++i) {
#pragma unroll
        for (int j = 0; j < kShare; ++j) s[i][j] = fmaf(u[i][l], v[j][l], s[i][j]);
      }
    }
  }
}

// A thread's part of a (64, head_dim) result: rows y + 16·i, columns 64·c + 4·x + l.
template <int Columns>
struct Accumulator {
  float value[kShare][Columns / kTile][4] = {};

  __device__ void scale_row(int i, float factor) {
#pragma unroll
    for (int c = 0; c < Columns / kTile; ++c) {
#pragma unroll
      for (int l = 0; l < 4; ++l) value[i][c][l] *= factor;
    }
  }
};

// sum[y + 16·i] += Σ_j weights[y + 16·i][j]·tile[j] over the first `rows` rows of the tile; weights beyond them, up to
// a multiple of 4, are zero.
template <int Columns>
__device__ inline void add_product(const float* weights, const float* tile, int rows, int head_dim,
                                   Accumulator<Columns>& sum) {
  const int x = threadIdx.x % kSide, y = threadIdx.x / kSide, pitch = tile_pitch(head_dim);
#pragma unroll 1
  for (int j = 0; j < rows; j += 4) {
    float w[kShare][4];
#pragma unroll
    for (int i = 0; i < kShare; ++i) load_pack(weights + (y + kSide * i) * kScorePitch + j, w[i]);
#pragma unroll
    for (int l = 0; l < 4; ++l) {
#pragma unroll
      for (int c = 0; c < Columns / kTile; ++c) {
        if (c * kTile + 4 * x >= head_dim) continue;
        float v[4];
        load_pack(tile + (j + l) * pitch + c * kTile + 4 * x, v);
#pragma unroll
        for (int i = 0; i < kShare; ++i) {
#pragma unroll
          for (int m = 0; m < 4; ++m) sum.value[i][c][m] = fmaf(w[i][l], v[m], sum.value[i][c][m]);
        }
      }
    }
  }
}

// to[x + 16·j of row y + 16·i] = s[i][j]. Only the 16 threads of a row read it again, and they are of one warp.
__device__ inline void store_scores(const float (&s)[kShare][kShare], float* to) {
  const int x = threadIdx.x % kSide, y = threadIdx.x / kSide;
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
#pragma unroll
    for (int j = 0; j < kShare; ++j) to[(y + kSide * i) * kScorePitch + x + kSide * j] = s[i][j];
  }
}

// Row i of a thread's result, times a factor, to where that row's head begins.
template <int Columns, typename T>
__device__ inline void write_row(const Accumulator<Columns>& sum, int i, float factor, int head_dim, bool packed,
                                 T* to) {
  const int x = threadIdx.x % kSide;
#pragma unroll
  for (int c = 0; c < Columns / kTile; ++c) {
    const int column = c * kTile + 4 * x;
    float v[4];
#pragma unroll
    for (int l = 0; l < 4; ++l) v[l] = sum.value[i][c][l] * factor;
    if (packed) {
      if (column < head_dim) store_pack(to + column, v);
    } else {
#pragma unroll
      for (int l = 0; l < 4; ++l) {
        if (column + l < head_dim) store_float(to + column + l, v[l]);
      }
    }
  }
}

// Over the 16 threads of a row; all of them get the result.
__device__ inline float row_sum(float v) {
#pragma unroll
  for (int offset = kSide / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(kAllLanes, v, offset);
  return v;
}
__device__ inline float row_max(float v) {
#pragma unroll
  for (int offset = kSide / 2; offset > 0; offset /= 2) v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, offset));
  return v;
}

}  // namespace drover::cuda
