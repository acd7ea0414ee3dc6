// y = alpha·x·wᵀ + beta·y for the few rows that are decoded: w is read once, 16 bytes at a time, and x stays in L1. A
// warp takes four outputs, or two of a narrow weight, so that enough warps have enough of it on its way. A lane sums
// every 32nd group of eight elements, in order, and the lanes are added as a tree: a row's sum runs in the same order
// whatever the number of rows, the pitch and the alignment are, so that a token decodes alike in any batch.
#include "kernels/cuda/device.h"
#include "kernels/cuda/gemv.h"

namespace drover::cuda {

namespace {

constexpr int kGroup = 8;          // neighbouring elements of a lane
constexpr int64_t kNarrow = 8192;  // outputs: the warps of four each would leave multiprocessors idle
constexpr int kWarps = 4;          // of a block

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

// One of the pointers is null.
struct Result {
  float* wide;
  bf16* narrow;
  int64_t pitch;
};

template <bool Packed, int Rows, int Outputs, typename T>
__global__ void __launch_bounds__(kWarps* kWarp)
    gemv_kernel(const T* x, int64_t x_pitch, int rows, const T* w, int64_t w_pitch, int64_t in, int64_t out,
                float alpha, float beta, Result y) {
  const int lane = threadIdx.x % kWarp;
  const int64_t first = (int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp) * Outputs;
  if (first >= out) return;
  const T *inputs[Rows], *weights[Outputs];  // past the last row the last one is read again, and nothing is stored
#pragma unroll
  for (int t = 0; t < Rows; ++t) inputs[t] = x + (t < rows ? t : rows - 1) * x_pitch;
#pragma unroll
  for (int o = 0; o < Outputs; ++o) weights[o] = w + (first + o < out ? first + o : out - 1) * w_pitch;

  float sums[Rows][Outputs] = {};
#pragma unroll(8 / Outputs)
  for (int64_t i = lane * kGroup; i < in; i += kWarp * kGroup) {
    float v[Outputs][kGroup];
#pragma unroll
    for (int o = 0; o < Outputs; ++o) load_group<Packed, true>(weights[o] + i, in - i, v[o]);
#pragma unroll
    for (int t = 0; t < Rows; ++t) {
      float u[kGroup];
      load_group<Packed, false>(inputs[t] + i, in - i, u);
#pragma unroll
      for (int o = 0; o < Outputs; ++o) {
#pragma unroll
        for (int j = 0; j < kGroup; ++j) sums[t][o] = fmaf(u[j], v[o][j], sums[t][o]);
      }
    }
  }

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

template <typename F>
void with_rows(int64_t rows, F&& f) {
  if (rows <= 1) return f(std::integral_constant<int, 1>{});
  if (rows <= 2) return f(std::integral_constant<int, 2>{});
  if (rows <= 4) return f(std::integral_constant<int, 4>{});
  f(std::integral_constant<int, 8>{});
}

}  // namespace

void gemv(cudaStream_t stream, float alpha, Tensor x, Tensor w, float beta, Tensor y) {
  require(gemv_takes(x, w) && x.cols == w.cols && y.rows == x.rows && y.cols == w.rows,
          "a few rows are multiplied by a weight of as many columns");
  Result result{nullptr, nullptr, y.pitch};
  if (y.dtype == DType::f32) {
    result.wide = y.as<float>();
  } else {
    result.narrow = y.as<bf16>();
  }
  const Tensor operands[] = {x, w};
  const bool packed = pack_width(operands) == kGroup;
  with_type(w, [&](const auto* ws) {
    using T = element<decltype(ws)>;
    with_rows(x.rows, [&](auto rows) {
      const auto with_outputs = [&](auto outputs) {
        const auto kernel = packed ? gemv_kernel<true, rows(), outputs(), T> : gemv_kernel<false, rows(), outputs(), T>;
        const unsigned grid = x.rows == 0 ? 0 : grid_of(w.rows, kWarps * outputs());
        launch("gemv", kernel, grid, kWarps * kWarp, 0, stream, x.as<T>(), x.pitch, static_cast<int>(x.rows), ws,
               w.pitch, w.cols, w.rows, alpha, beta, result);
      };
      w.rows <= kNarrow ? with_outputs(std::integral_constant<int, 2>{})
                        : with_outputs(std::integral_constant<int, 4>{});
    });
  });
}

}  // namespace drover::cuda
