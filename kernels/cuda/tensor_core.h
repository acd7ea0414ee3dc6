// Products of 16 × 16 tiles on the tensor cores, bf16 to fp32, and copies to shared memory that overlap with
// arithmetic. All lanes of a warp take part in each call. A tile lies in shared memory on a 16-byte boundary, as do its
// rows; `pitch` is in elements. Source: PTX ISA, ldmatrix and mma.m16n8k16.
#pragma once
#include "kernels/tensor.h"

#if defined(__CUDACC__)
#include <cuda_pipeline.h>
#else
#include "emulated_tensor_core.h"
#endif

namespace drover::cuda {

inline constexpr int kTensorTile = 16;

#if defined(__CUDACC__)

struct LeftTile {  // (rows, k) of a product
  uint32_t word[4];
};
struct RightTile {  // (k, columns)
  uint32_t word[4];
};
struct SumTile {  // fp32 (rows, columns)
  float value[8];
};

// A matrix in shared memory whose tiles are read; `at`: of a tile's first element.
class TileSource {
 public:
  __device__ TileSource(const bf16* matrix, int pitch) {
    const int lane = threadIdx.x % 32;
    straight_ = address_of(matrix) + 2 * (lane % 16 * pitch + lane / 16 * 8);
    turned_ = address_of(matrix) + 2 * ((lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 8);
  }
  __device__ LeftTile left(int at) const {
    LeftTile tile;
    load<false>(tile.word, straight_ + 2 * at);
    return tile;
  }
  __device__ LeftTile left_transposed(int at) const {  // there lies (k, rows)
    LeftTile tile;
    load<true>(tile.word, turned_ + 2 * at);
    return tile;
  }
  __device__ RightTile right(int at) const {
    RightTile tile;
    load<true>(tile.word, straight_ + 2 * at);
    return tile;
  }

 private:
  static __device__ unsigned address_of(const bf16* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }
  template <bool Transposed>
  static __device__ void load(uint32_t (&to)[4], unsigned row_of_lane) {
    if constexpr (Transposed) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                   : "r"(row_of_lane)
                   : "memory");
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                   : "r"(row_of_lane)
                   : "memory");
    }
  }
  unsigned straight_, turned_;
};

__device__ inline void clear(SumTile& sum) {
#pragma unroll
  for (float& v : sum.value) v = 0;
}
__device__ inline void add_product(SumTile& sum, const LeftTile& a, const RightTile& b) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float* const c = sum.value + 4 * half;
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[2 * half]),
          "r"(b.word[2 * half + 1]));
  }
}
// To rows of any memory, each on an 8-byte boundary.
__device__ inline void store(const SumTile& sum, float* to, int pitch) {
  const int lane = threadIdx.x % 32, row = lane / 4, column = lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    *reinterpret_cast<float2*>(to + (row + i % 2 * 8) * pitch + column + i / 2 * 8) =
        float2{sum.value[2 * i], sum.value[2 * i + 1]};
}

// 16 bytes to shared memory, there after the __pipeline_wait_prior of their commit.
__device__ inline void copy_16_bytes(bf16* to, const bf16* from) {
  asm volatile(
      "cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
      "l"(from)
      : "memory");
}
// As many zeros where there is nothing to copy.
__device__ inline void copy_16_bytes_or_zeros(bf16* to, const bf16* from, bool exists) {
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
      "l"(from), "r"(exists ? 16 : 0)
      : "memory");
}

#endif

}  // namespace drover::cuda
