// y = alpha·x·wᵀ + beta·y for the few rows that are decoded: w is read once, 16 bytes at a time, and x stays in L1. A
// warp takes four outputs, or two of a narrow weight, so that enough warps have enough of it on its way. A lane sums
// every 32nd group of eight elements, in order, and the lanes are added as a tree: a row's sum runs in the same order
// whatever the number of rows, the pitch and the alignment are, so that a token decodes alike in any batch.
#include "kernels/cuda/gemv_parts.h"

namespace drover::cuda {

namespace {

template <bool Packed, int Rows, int Outputs, typename T>
__global__ void __launch_bounds__(kWarps* kWarp)
    gemv_kernel(const T* x, int64_t x_pitch, int rows, const T* w, int64_t w_pitch, int64_t in, int64_t out,
                float alpha, float beta, GemvResult y) {
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
    add_group<Packed>(inputs, i, in, v, sums);
  }

  store_sums(sums, rows, first, out, alpha, beta, y);
}

}  // namespace

void gemv(cudaStream_t stream, float alpha, Tensor x, Tensor w, float beta, Tensor y) {
  require(gemv_takes(x, w) && x.cols == w.cols && y.rows == x.rows && y.cols == w.rows,
          "a few rows are multiplied by a weight of as many columns");
  const GemvResult result = gemv_result(y);
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
