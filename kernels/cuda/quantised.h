// How kernels read frozen weights that are codes with scales (kernels/quantised_weight.h). A lane takes eight
// neighbours of a row, from a column that is a multiple of eight, and a warp 256 of them, so that codes and values
// both move in whole lines. NF4's absmax is computed by one lane of the warp for all that share it.
#pragma once
#include <array>

#include "kernels/base/e4m3.h"
#include "kernels/cuda/device.h"
#include "kernels/quantised_weight.h"

namespace drover::cuda {

inline constexpr int kCodes = 8;                      // of a lane
inline constexpr int kWarpCodes = kWarp * kCodes;     // columns of a warp
inline constexpr int kNf4Lanes = kNf4Block / kCodes;  // that share an absmax

// --- rounding --------------------------------------------------------------------------------------

__device__ inline float through_f16(float v) {
#if defined(__CUDACC__)
  float result;
  asm("{\n\t.reg .f16 h;\n\tcvt.rn.f16.f32 h, %1;\n\tcvt.f32.f16 %0, h;\n\t}" : "=f"(result) : "f"(v));
  return result;
#else
  return static_cast<float>(static_cast<_Float16>(v));
#endif
}
template <int N>
__device__ inline void through_bf16(float (&v)[N]) {
#pragma unroll
  for (int i = 0; i < N; i += 2) {
    const uint32_t word = two_bf16(v[i], v[i + 1]);
    v[i] = std::bit_cast<float>(word << 16);
    v[i + 1] = std::bit_cast<float>(word & 0xffff0000u);
  }
}
// What the weight says. Numbers that are stored as bf16 next are not rounded to it twice.
template <bool Bf16Next>
__device__ inline void round_as(Rounding rounding, float (&v)[kCodes]) {
  if (rounding == Rounding::f16) {
#pragma unroll
    for (float& value : v) value = through_f16(value);
  } else if (!Bf16Next && rounding == Rounding::bf16) {
    through_bf16(v);
  }
}

// --- fp8 -------------------------------------------------------------------------------------------

__device__ inline void e4m3_values(const uint32_t (&word)[2], float (&v)[kCodes]) {
#if defined(__CUDACC__)
#pragma unroll
  for (int i = 0; i < kCodes; i += 2) {
    const uint16_t pair = static_cast<uint16_t>(word[i / 4] >> (i % 4 * 8));
    asm("{\n\t.reg .b32 both;\n\t.reg .f16 low, high;\n\tcvt.rn.f16x2.e4m3x2 both, %2;\n\tmov.b32 {low, high}, "
        "both;\n\t"
        "cvt.f32.f16 %0, low;\n\tcvt.f32.f16 %1, high;\n\t}"
        : "=f"(v[i]), "=f"(v[i + 1])
        : "h"(pair));
  }
#else
  for (int i = 0; i < kCodes; ++i) v[i] = float_of_e4m3(static_cast<uint8_t>(word[i / 4] >> (i % 4 * 8)));
#endif
}

struct Fp8View {
  static constexpr int kWords = 2;  // of a lane's codes
  static constexpr bool kSharedScales = false;
  const uint8_t* codes;
  int64_t pitch;
  const float* scales;
  int64_t scale_pitch;
  const int32_t* scale_row;
  uint32_t phase, block;  // of columns; block 0: all
  Rounding rounding;

  // `left`: columns of the row from this one on, at least one. Packed: at least eight, on an 8-byte boundary.
  template <bool Packed>
  __device__ void load(int64_t row, int64_t column, int64_t left, uint32_t (&word)[kWords]) const {
    const uint8_t* from = codes + row * pitch + column;
    if constexpr (Packed) {
      const uint2 both = __ldcs(reinterpret_cast<const uint2*>(from));
      word[0] = both.x, word[1] = both.y;
    } else {
      word[0] = word[1] = 0;
#pragma unroll
      for (int i = 0; i < kCodes; ++i) {
        if (i < left) word[i / 4] |= uint32_t{from[i]} << (i % 4 * 8);
      }
    }
  }
  __device__ void values(const uint32_t (&word)[kWords], int64_t row, int64_t column, int64_t left,
                         float (&v)[kCodes]) const {
    e4m3_values(word, v);
    const float* scale_at = scales + scale_row[row] * scale_pitch;
    int next = kCodes;  // the first of another block
    if (block != 0) {
      const uint32_t at = phase + static_cast<uint32_t>(column), b = at / block, rest = block - (at - b * block);
      next = static_cast<int>(rest < kCodes ? rest : kCodes);
      scale_at += b;
    }
    float scale = *scale_at;
    if (next >= kCodes) {
#pragma unroll
      for (float& value : v) value *= scale;
      return;
    }
#pragma unroll
    for (int i = 0; i < kCodes; ++i) {
      if (i == next && i < left) {
        scale = *++scale_at;
        next += static_cast<int>(block);
      }
      v[i] *= scale;
    }
  }
};

// --- NF4 -------------------------------------------------------------------------------------------

struct Nf4View {
  static constexpr int kWords = 1;
  static constexpr bool kSharedScales = true;
  const uint8_t* codes;
  int64_t pitch;
  const void* absmax;   // f32 or, nested, u8
  int64_t blocks;       // of a row
  const float* nested;  // null: absmax are f32, and there are none of these
  const float* absmax_levels;
  const int32_t* first_block;
  const float* offset;
  Rounding rounding;

  template <bool Packed>
  __device__ void load(int64_t row, int64_t column, int64_t /*left*/, uint32_t (&word)[kWords]) const {
    word[0] = __ldcs(reinterpret_cast<const uint32_t*>(codes + row * pitch + column / 2));
  }
  __device__ float scale_of(int64_t row, int64_t block) const {
    const int64_t at = row * blocks + block;
    if (nested == nullptr) return static_cast<const float*>(absmax)[at];
    const uint8_t code = static_cast<const uint8_t*>(absmax)[at];
    const float product = absmax_levels[code] * nested[(first_block[row] + block) / kNf4NestedBlock];
    return product + offset[row];  // two roundings: nothing is fused (toolkit.cmake)
  }
  // `levels` in shared memory: sixteen banks, so that no two lanes wait for each other.
  __device__ void values(const uint32_t (&word)[kWords], const float* levels, float scale, float (&v)[kCodes]) const {
#pragma unroll
    for (int i = 0; i < kCodes; ++i) {
      const int shift = i / 2 * 8 + (i % 2 == 0 ? 4 : 0);
      v[i] = levels[(word[0] >> shift) & 15u] * scale;
    }
  }
};

static __constant__ const std::array<float, 16> kDeviceNf4Levels = kNf4Levels;
// The levels in shared memory; to be called by all threads of a block, once.
template <typename View>
__device__ inline const float* shared_levels() {
  __shared__ float levels[16];
  if constexpr (View::kSharedScales) {
    if (threadIdx.x < 16) levels[threadIdx.x] = kDeviceNf4Levels[threadIdx.x];
    __syncthreads();
  }
  return levels;
}

// --- host side -------------------------------------------------------------------------------------

// Calls f with the view of a quantised weight.
template <typename F>
void with_view(const Weight& weight, F&& f) {
  if (weight.format() == Format::fp8) {
    const auto& w = static_cast<const Fp8Weight&>(weight);
    return f(Fp8View{w.codes.as<uint8_t>(), w.codes.pitch, w.scales.as<float>(), w.scales.pitch,
                     w.scale_row.as<int32_t>(), static_cast<uint32_t>(w.column_phase),
                     static_cast<uint32_t>(w.blocks.columns), w.rounding});
  }
  require(weight.format() == Format::nf4, "the weight is quantised");
  const auto& w = static_cast<const Nf4Weight&>(weight);
  Nf4View view{.codes = w.codes.as<uint8_t>(),
               .pitch = w.codes.pitch,
               .absmax = w.absmax.data,
               .blocks = w.absmax.pitch,
               .nested = nullptr,
               .absmax_levels = nullptr,
               .first_block = nullptr,
               .offset = nullptr,
               .rounding = w.rounding};
  if (w.nested()) {
    view.nested = w.nested_absmax.as<float>();
    view.absmax_levels = w.levels.as<float>();
    view.first_block = w.first_block.as<int32_t>();
    view.offset = w.offset.as<float>();
  }
  f(view);
}

// Whether Packed loads may be asked of a weight's rows.
inline bool codes_are_packed(const Weight& weight) {
  if (weight.format() != Format::fp8) return true;
  const Tensor codes = static_cast<const Fp8Weight&>(weight).codes;
  return codes.cols % kCodes == 0 && codes.pitch % kCodes == 0 && reinterpret_cast<uintptr_t>(codes.data) % kCodes == 0;
}
// Whether a float tensor's rows are whole groups of eight, each to be moved 16 bytes at a time.
inline bool rows_of_eight(Tensor t) {
  const int64_t bytes = size_of(t.dtype);
  return t.cols % kCodes == 0 && (t.rows <= 1 || t.pitch * bytes % 16 == 0) &&
         reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
}

}  // namespace drover::cuda
