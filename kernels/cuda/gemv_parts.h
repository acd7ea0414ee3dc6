// What the kernels for a few rows share: how a lane reads its groups of eight elements, and how the sums of a warp's
// lanes become a row of results.
#pragma once
#include "kernels/cuda/device.h"
#include "kernels/cuda/gemv.h"

namespace drover::cuda {

inline constexpr int kGroup = 8;          // neighbouring elements of a lane
inline constexpr int64_t kNarrow = 8192;  // outputs: the warps of four each would leave multiprocessors idle
inline constexpr int kWarps = 4;          // of a block

// A group whose first `left` elements exist; the others are zero. `Packed`: rows are whole groups on 16-byte
// boundaries. `Once`: what is read once is not to push x out of L1.
template <bool Packed, bool Once, typename T>
__device__ inline void load_group(const T* from, int64_t left, float (&to)[kGroup]) {
  if constexpr (Packed && Once) {
    constexpr int kWords = kGroup * sizeof(T) / 16;
    uint4 words[kWords];
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = __ldcs(reinterpret_cast<const uint4*>(from) + i);
    Pack<T, kGroup> pack;
    __builtin_memcpy(&pack, words, sizeof(pack));
#pragma unroll
    for (int i = 0; i < kGroup; ++i) to[i] = load_float(&pack.value[i]);
  } else if constexpr (Packed) {
    load_pack(from, to);
  } else {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) to[i] = i < left ? load_float(from + i) : 0.0f;
  }
}

// sums[t][o] += a group of row t, from column i on, times that of output o.
template <bool Packed, int Rows, int Outputs, typename T>
__device__ inline void add_group(const T* const (&inputs)[Rows], int64_t i, int64_t in,
                                 const float (&weights)[Outputs][kGroup], float (&sums)[Rows][Outputs]) {
#pragma unroll
  for (int t = 0; t < Rows; ++t) {
    float u[kGroup];
    load_group<Packed, false>(inputs[t] + i, in - i, u);
#pragma unroll
    for (int o = 0; o < Outputs; ++o) {
#pragma unroll
      for (int j = 0; j < kGroup; ++j) sums[t][o] = fmaf(u[j], weights[o][j], sums[t][o]);
    }
  }
}

// One of the pointers is null.
struct GemvResult {
  float* wide;
  bf16* narrow;
  int64_t pitch;
};

inline GemvResult gemv_result(Tensor y) {
  if (y.dtype == DType::f32) return {y.as<float>(), nullptr, y.pitch};
  return {nullptr, y.as<bf16>(), y.pitch};
}

// y = alpha·(the sums of all lanes) + beta·y, for rows 0..rows-1 and the outputs from `first` on.
template <int Rows, int Outputs>
__device__ inline void store_sums(const float (&sums)[Rows][Outputs], int rows, int64_t first, int64_t out, float alpha,
                                  float beta, const GemvResult& y) {
  const int lane = threadIdx.x % kWarp;
  float mine = 0;  // lane t·Outputs + o keeps the sum of row t and output o
#pragma unroll
  for (int t = 0; t < Rows; ++t) {
#pragma unroll
    for (int o = 0; o < Outputs; ++o) {
      const float sum = warp_sum(sums[t][o]);
      if (lane == t * Outputs + o) mine = sum;
    }
  }
  const int t = lane / Outputs;
  const int64_t output = first + lane % Outputs;
  if (t >= rows || output >= out) return;
  const int64_t at = t * y.pitch + output;
  float value = alpha * mine;
  if (y.wide != nullptr) {
    if (beta != 0) value = fmaf(beta, y.wide[at], value);
    y.wide[at] = value;
  } else {
    if (beta != 0) value = fmaf(beta, load_float(y.narrow + at), value);
    store_float(y.narrow + at, value);
  }
}

// Calls f with 1, 2, 4 or 8, the least that is not less than `rows`.
template <typename F>
void with_rows(int64_t rows, F&& f) {
  if (rows <= 1) return f(std::integral_constant<int, 1>{});
  if (rows <= 2) return f(std::integral_constant<int, 2>{});
  if (rows <= 4) return f(std::integral_constant<int, 4>{});
  f(std::integral_constant<int, 8>{});
}

}  // namespace drover::cuda
