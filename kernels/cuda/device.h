// What kernels share: 16-byte packs, sums over a block in a fixed order, and row geometry. bf16 is storage; arithmetic
// is fp32.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <type_traits>

#include "kernels/cuda/launch.h"
#include "kernels/tensor.h"

namespace drover::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline float load_float(const float* p) { return *p; }
__device__ inline float load_float(const bf16* p) { return static_cast<float>(*p); }
__device__ inline float load_float(const double* p) { return static_cast<float>(*p); }
__device__ inline void store_float(float* p, float v) { *p = v; }
__device__ inline void store_float(bf16* p, float v) { *p = bf16(v); }
__device__ inline void store_float(double* p, float v) { *p = static_cast<double>(v); }

template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T value[N];
};

// 4-byte words moved as CUDA's own vectors: stores of a plain struct are not merged by the compiler.
template <int Words>
__device__ inline void load_words(const void* from, uint32_t (&w)[Words]) {
  if constexpr (Words % 4 == 0) {
#pragma unroll
    for (int i = 0; i < Words; i += 4) {
      const uint4 v = static_cast<const uint4*>(from)[i / 4];
      w[i] = v.x, w[i + 1] = v.y, w[i + 2] = v.z, w[i + 3] = v.w;
    }
  } else if constexpr (Words == 2) {
    const uint2 v = *static_cast<const uint2*>(from);
    w[0] = v.x, w[1] = v.y;
  } else {
    static_assert(Words == 1);
    w[0] = *static_cast<const uint32_t*>(from);
  }
}
template <int Words>
__device__ inline void store_words(void* to, const uint32_t (&w)[Words]) {
  if constexpr (Words % 4 == 0) {
#pragma unroll
    for (int i = 0; i < Words; i += 4) static_cast<uint4*>(to)[i / 4] = uint4{w[i], w[i + 1], w[i + 2], w[i + 3]};
  } else if constexpr (Words == 2) {
    *static_cast<uint2*>(to) = uint2{w[0], w[1]};
  } else {
    static_assert(Words == 1);
    *static_cast<uint32_t*>(to) = w[0];
  }
}
__device__ inline uint32_t two_bf16(float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return bf16(low).bits | uint32_t{bf16(high).bits} << 16;
#endif
}

// N neighbouring elements as they lie in memory, read by one thread 16 bytes at a time. Kept like this, bf16 takes half
// the registers.
template <int N, typename T>
struct Packed {
  static constexpr bool kWords = N % 2 == 0 && !std::is_same_v<T, double>;
  std::conditional_t<kWords, uint32_t, float> w[kWords ? N * sizeof(T) / 4 : N];
};
template <int N, typename T>
__device__ inline void load_packed(const T* from, Packed<N, T>& to) {
  if constexpr (Packed<N, T>::kWords) {
    load_words(from, to.w);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to.w[i] = load_float(from + i);
  }
}
template <int N, typename T>
__device__ inline void unpack(const Packed<N, T>& from, float (&to)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if constexpr (!Packed<N, T>::kWords) {
      to[i] = from.w[i];
    } else if constexpr (std::is_same_v<T, float>) {
      to[i] = std::bit_cast<float>(from.w[i]);
    } else {
      to[i] = std::bit_cast<float>(i % 2 == 0 ? from.w[i / 2] << 16 : from.w[i / 2] & 0xffff0000u);
    }
  }
}
// N neighbouring elements read or written by one thread, 16 bytes at a time.
template <int N, typename T>
__device__ inline void load_pack(const T* from, float (&to)[N]) {
  Packed<N, T> packed;
  load_packed(from, packed);
  unpack(packed, to);
}
template <int N, typename T>
__device__ inline void store_pack(T* to, const float (&from)[N]) {
  if constexpr (N % 2 != 0 || std::is_same_v<T, double>) {
#pragma unroll
    for (int i = 0; i < N; ++i) store_float(to + i, from[i]);
  } else {
    constexpr int kWords = N * sizeof(T) / 4;
    uint32_t w[kWords];
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      if constexpr (std::is_same_v<T, float>) {
        w[i] = std::bit_cast<uint32_t>(from[i]);
      } else {
        w[i] = two_bf16(from[2 * i], from[2 * i + 1]);
      }
    }
    store_words(to, w);
  }
}

// How many elements may be moved at once in every row of all tensors: the largest of 8, 4 and 1 that divides widths and
// pitches and finds every row aligned for its pack; 8 only where a bf16 takes part, since neighbouring threads should
// read neighbouring 16 bytes.
inline int pack_width(std::span<const Tensor> tensors) {
  for (int n : {8, 4}) {
    bool fits = true;
    int64_t least = 16;
    for (const Tensor& t : tensors) {
      if (t.empty()) continue;
      const int64_t bytes = std::min<int64_t>(16, n * size_of(t.dtype));
      fits = fits && t.cols % n == 0 && (t.rows <= 1 || t.pitch % n == 0) &&
             reinterpret_cast<uintptr_t>(t.data) % static_cast<uintptr_t>(bytes) == 0;
      least = std::min(least, size_of(t.dtype));
    }
    if (fits && n * least <= 16) return n;
  }
  return 1;
}

__device__ inline float warp_sum(float v) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(kAllLanes, v, offset);
  return v;
}
__device__ inline double warp_sum(double v) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(kAllLanes, v, offset);
  return v;
}
__device__ inline float warp_max(float v) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, offset));
  return v;
}

// The same value for every thread of a block of `Threads` (a multiple of 32, at most 1024); to be called by all of
// them.
template <int Threads, typename T, typename WarpReduce>
__device__ inline T block_reduce(T v, T identity, WarpReduce&& reduce) {
  constexpr int kWarps = Threads / kWarp;
  __shared__ T part[kWarps];
  v = reduce(v);
  if constexpr (kWarps > 1) {
    if (threadIdx.x % kWarp == 0) part[threadIdx.x / kWarp] = v;
    __syncthreads();
    v = reduce(threadIdx.x % kWarp < kWarps ? part[threadIdx.x % kWarp] : identity);
    __syncthreads();  // part may be used again
  }
  return v;
}
// The same for a block whose number of threads (a multiple of 32, at most 1024) is known at launch only. Once a kernel:
// `part` is not to be used again.
__device__ inline float sum_of_block(float v) {
  __shared__ float part[kWarp];
  const unsigned warps = blockDim.x / kWarp;
  v = warp_sum(v);
  if (warps == 1) return v;
  if (threadIdx.x % kWarp == 0) part[threadIdx.x / kWarp] = v;
  __syncthreads();
  return warp_sum(threadIdx.x % kWarp < warps ? part[threadIdx.x % kWarp] : 0.0f);
}
template <int Threads>
__device__ inline float block_sum(float v) {
  return block_reduce<Threads>(v, 0.0f, [](float x) { return warp_sum(x); });
}
template <int Threads>
__device__ inline double block_sum(double v) {
  return block_reduce<Threads>(v, 0.0, [](double x) { return warp_sum(x); });
}
template <int Threads>
__device__ inline float block_max(float v) {
  return block_reduce<Threads>(v, -INFINITY, [](float x) { return warp_max(x); });
}

// Dynamic shared memory of the running block, 16-byte aligned.
__device__ inline char* dynamic_shared() {
#if defined(__CUDACC__)
  extern __shared__ float4 drover_dynamic_shared[];
  return reinterpret_cast<char*>(drover_dynamic_shared);
#else
  return emulation::dynamic_shared();
#endif
}

// --- host side: which instance of a kernel, and its grid -----------------------------------------

// Calls f with the tensor's typed data pointer: float* or bf16*.
template <typename F>
void with_type(Tensor t, F&& f) {
  switch (t.dtype) {
    case DType::f32: return f(static_cast<float*>(t.data));
    case DType::bf16: return f(static_cast<bf16*>(t.data));
    default: require(false, "an op on floats was given another dtype");
  }
}
template <typename Pointer>
using element = std::remove_const_t<std::remove_pointer_t<Pointer>>;

// Calls f with the pack width of the tensors as a constant: n() is 8, 4 or 1.
template <typename F>
void with_width(std::initializer_list<Tensor> tensors, F&& f) {
  switch (pack_width({tensors.begin(), tensors.size()})) {
    case 8: return f(std::integral_constant<int, 8>{});
    case 4: return f(std::integral_constant<int, 4>{});
    default: return f(std::integral_constant<int, 1>{});
  }
}

// A vector (n,1) as one row of n columns.
inline Tensor as_row(Tensor v) {
  if (v.rows != 1) {
    require(v.cols == 1 && v.pitch == 1, "a vector is contiguous");
    v.cols = v.pitch = v.rows;
    v.rows = 1;
  }
  return v;
}

inline unsigned grid_of(int64_t blocks) {
  require(blocks >= 0 && blocks <= 0x7fffffff, "a grid has at most 2^31-1 blocks");
  return static_cast<unsigned>(blocks);
}
inline unsigned grid_of(int64_t size, int64_t per_block) { return grid_of((size + per_block - 1) / per_block); }

}  // namespace drover::cuda
