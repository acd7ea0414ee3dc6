// RMSNorm forward and backward: one block a row. A row is read twice; the second time it comes from the cache.
// Source: Zhang & Sennrich 2019.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"

namespace drover::cuda {

namespace {

constexpr int kThreads = 256;

// y = x·rstd·w; with `Compute` rstd is formed here.
template <int N, bool Compute, typename X, typename W, typename Y>
__global__ void norm_kernel(const X* x, int64_t x_pitch, const W* w, float eps, int64_t cols, Y* y, int64_t y_pitch, float* rstd) {
  const X* row = x + blockIdx.x * x_pitch;
  float scale = 0;
  if constexpr (Compute) {
    float squares = 0;
    for (int64_t i = threadIdx.x * N; i < cols; i += kThreads * N) {
      float v[N];
      load_pack(row + i, v);
#pragma unroll
      for (int j = 0; j < N; ++j) squares += v[j] * v[j];
    }
    scale = 1.0f / sqrtf(block_sum<kThreads>(squares) / static_cast<float>(cols) + eps);
    if (threadIdx.x == 0) rstd[blockIdx.x] = scale;
  } else {
    scale = rstd[blockIdx.x];
  }
  Y* out = y + blockIdx.x * y_pitch;
  for (int64_t i = threadIdx.x * N; i < cols; i += kThreads * N) {
    float v[N], weight[N];
    load_pack(row + i, v);
    load_pack(w + i, weight);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = v[j] * scale * weight[j];
    store_pack(out + i, v);
  }
}

// dx += s·(dy∘w - x·s²·mean(dy∘w∘x))
template <int N, typename G, typename X, typename W, typename D>
__global__ void norm_backward_kernel(const G* dy, int64_t dy_pitch, const X* x, int64_t x_pitch, const float* rstd, const W* w, int64_t cols, D* dx,
                                     int64_t dx_pitch) {
  const G* gradient = dy + blockIdx.x * dy_pitch;
  const X* row = x + blockIdx.x * x_pitch;
  D* out = dx + blockIdx.x * dx_pitch;
  float product = 0;
  for (int64_t i = threadIdx.x * N; i < cols; i += kThreads * N) {
    float g[N], v[N], weight[N];
    load_pack(gradient + i, g);
    load_pack(row + i, v);
    load_pack(w + i, weight);
#pragma unroll
    for (int j = 0; j < N; ++j) product += g[j] * weight[j] * v[j];
  }
  const float s = rstd[blockIdx.x];
  const float back = s * s * block_sum<kThreads>(product) / static_cast<float>(cols);
  for (int64_t i = threadIdx.x * N; i < cols; i += kThreads * N) {
    float g[N], v[N], weight[N], old[N];
    load_pack(gradient + i, g);
    load_pack(row + i, v);
    load_pack(w + i, weight);
    load_pack(out + i, old);
#pragma unroll
    for (int j = 0; j < N; ++j) old[j] += s * (g[j] * weight[j] - v[j] * back);
    store_pack(out + i, old);
  }
}

template <bool Compute>
void norm(cudaStream_t stream, Tensor x, Tensor w, float eps, Tensor y, Tensor rstd) {
  with_width({x, as_row(w), y}, [&](auto n) {
    with_type(x, [&](const auto* xs) {
      with_type(w, [&](const auto* ws) {
        with_type(y, [&](auto* ys) {
          launch("rms_norm", norm_kernel<n(), Compute, element<decltype(xs)>, element<decltype(ws)>, element<decltype(ys)>>, grid_of(x.rows), kThreads, 0,
                 stream, xs, x.pitch, ws, eps, x.cols, ys, y.pitch, rstd.as<float>());
        });
      });
    });
  });
}

}  // namespace

void CudaBackend::rms_norm(Tensor x, Tensor w, float eps, Tensor y, Tensor rstd) { norm<true>(stream_, x, w, eps, y, rstd); }
void CudaBackend::rms_norm_again(Tensor x, Tensor rstd, Tensor w, Tensor y) { norm<false>(stream_, x, w, 0, y, rstd); }

void CudaBackend::rms_norm_backward(Tensor dy, Tensor x, Tensor rstd, Tensor w, Tensor dx) {
  with_width({dy, x, as_row(w), dx}, [&](auto n) {
    with_type(dy, [&](const auto* dys) {
      with_type(x, [&](const auto* xs) {
        with_type(w, [&](const auto* ws) {
          with_type(dx, [&](auto* dxs) {
            launch("rms_norm_backward",
                   norm_backward_kernel<n(), element<decltype(dys)>, element<decltype(xs)>, element<decltype(ws)>, element<decltype(dxs)>>, grid_of(x.rows),
                   kThreads, 0, stream_, dys, dy.pitch, xs, x.pitch, rstd.as<float>(), ws, x.cols, dxs, dx.pitch);
          });
        });
      });
    });
  });
}

}  // namespace drover::cuda
