// RMSNorm forward and backward: one block a row. Forward, its threads keep the row from the first pass to the second;
// what of a very long row they cannot keep is read twice. Source: Zhang & Sennrich 2019.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"

namespace drover::cuda {

namespace {

constexpr int kKept = 2;  // packs of a thread
constexpr int kMostThreads = 1024, kThreadsBackward = 256;

int threads_of(int64_t cols, int width) {
  const int64_t lanes = (cols + kKept * width - 1) / (kKept * width);
  return static_cast<int>(std::clamp<int64_t>((lanes + kWarp - 1) / kWarp * kWarp, kWarp, kMostThreads));
}

// What a thread does with its packs, in order: kept(k, column) for those that it keeps, then again(column) for the
// rest.
template <int N, typename Kept, typename Again>
__device__ void each_pack(int64_t cols, Kept&& kept, Again&& again) {
  int64_t i = int64_t{threadIdx.x} * N;
  const int64_t next = int64_t{blockDim.x} * N;
#pragma unroll
  for (int k = 0; k < kKept; ++k, i += next) {
    if (i < cols) kept(k, i);
  }
  for (; i < cols; i += next) again(i);
}

// y = x·rstd·w; with `Compute` rstd is formed here. All that is kept is on its way before the sum is waited for.
template <int N, bool Compute, typename X, typename W, typename Y>
__global__ void __launch_bounds__(kMostThreads, 1)
    norm_kernel(const X* x, int64_t x_pitch, const W* w, float eps, int64_t cols, Y* y, int64_t y_pitch, float* rstd) {
  const X* row = x + blockIdx.x * x_pitch;
  Y* out = y + blockIdx.x * y_pitch;
  Packed<N, X> values[kKept];
  Packed<N, W> weights[kKept];
  each_pack<N>(
      cols, [&](int k, int64_t i) { load_packed(row + i, values[k]), load_packed(w + i, weights[k]); }, [](int64_t) {});
  float scale = 0;
  if constexpr (Compute) {
    float squares = 0;
    const auto add = [&](const Packed<N, X>& packed) {
      float v[N];
      unpack(packed, v);
#pragma unroll
      for (int j = 0; j < N; ++j) squares += v[j] * v[j];
    };
    const auto add_again = [&](int64_t i) {
      Packed<N, X> packed;
      load_packed(row + i, packed);
      add(packed);
    };
    each_pack<N>(
        cols, [&](int k, int64_t) { add(values[k]); }, add_again);
    scale = 1.0f / sqrtf(sum_of_block(squares) / static_cast<float>(cols) + eps);
    if (threadIdx.x == 0) rstd[blockIdx.x] = scale;
  } else {
    scale = rstd[blockIdx.x];
  }
  const auto put = [&](int64_t i, const Packed<N, X>& value, const Packed<N, W>& weight) {
    float v[N], g[N];
    unpack(value, v);
    unpack(weight, g);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] = v[j] * scale * g[j];
    store_pack(out + i, v);
  };
  const auto put_again = [&](int64_t i) {
    Packed<N, X> value;
    Packed<N, W> weight;
    load_packed(row + i, value);
    load_packed(w + i, weight);
    put(i, value, weight);
  };
  each_pack<N>(
      cols, [&](int k, int64_t i) { put(i, values[k], weights[k]); }, put_again);
}

// dx += s·(dy∘w - x·s²·mean(dy∘w∘x)). A row is read twice, the second time from the cache: to keep it would leave too
// few threads on a multiprocessor.
template <int N, typename G, typename X, typename W, typename D>
__global__ void norm_backward_kernel(const G* dy, int64_t dy_pitch, const X* x, int64_t x_pitch, const float* rstd,
                                     const W* w, int64_t cols, D* dx, int64_t dx_pitch) {
  const G* gradient = dy + blockIdx.x * dy_pitch;
  const X* row = x + blockIdx.x * x_pitch;
  D* out = dx + blockIdx.x * dx_pitch;
  float product = 0;
  for (int64_t i = threadIdx.x * N; i < cols; i += kThreadsBackward * N) {
    float g[N], v[N], weight[N];
    load_pack(gradient + i, g);
    load_pack(row + i, v);
    load_pack(w + i, weight);
#pragma unroll
    for (int j = 0; j < N; ++j) product += g[j] * weight[j] * v[j];
  }
  const float s = rstd[blockIdx.x];
  const float back = s * s * block_sum<kThreadsBackward>(product) / static_cast<float>(cols);
  for (int64_t i = threadIdx.x * N; i < cols; i += kThreadsBackward * N) {
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
          launch("rms_norm",
                 norm_kernel<n(), Compute, element<decltype(xs)>, element<decltype(ws)>, element<decltype(ys)>>,
                 grid_of(x.rows), threads_of(x.cols, n()), 0, stream, xs, x.pitch, ws, eps, x.cols, ys, y.pitch,
                 rstd.as<float>());
        });
      });
    });
  });
}

}  // namespace

void CudaBackend::do_rms_norm(Tensor x, Tensor w, float eps, Tensor y, Tensor rstd) {
  norm<true>(stream_, x, w, eps, y, rstd);
}
void CudaBackend::do_rms_norm_again(Tensor x, Tensor rstd, Tensor w, Tensor y) {
  norm<false>(stream_, x, w, 0, y, rstd);
}

void CudaBackend::do_rms_norm_backward(Tensor dy, Tensor x, Tensor rstd, Tensor w, Tensor dx) {
  with_width({dy, x, as_row(w), dx}, [&](auto n) {
    with_type(dy, [&](const auto* dys) {
      with_type(x, [&](const auto* xs) {
        with_type(w, [&](const auto* ws) {
          with_type(dx, [&](auto* dxs) {
            launch("rms_norm_backward",
                   norm_backward_kernel<n(), element<decltype(dys)>, element<decltype(xs)>, element<decltype(ws)>,
                                        element<decltype(dxs)>>,
                   grid_of(x.rows), kThreadsBackward, 0, stream_, dys, dy.pitch, xs, x.pitch, rstd.as<float>(), ws,
                   x.cols, dxs, dx.pitch);
          });
        });
      });
    });
  });
}

}  // namespace drover::cuda
