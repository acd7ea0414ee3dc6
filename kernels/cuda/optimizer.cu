// Sums for the gradient norm in fp64, the clipping factor, and AdamW on flat buffers. What is not finite stops the
// update on the device itself: the factor of such a norm is NaN from then on, and AdamW leaves everything as it was
// where the factor is not finite. Source: Loshchilov & Hutter 2019, in the order of torch.optim.AdamW.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/reductions.h"
#include "kernels/cuda/walk.h"

namespace drover::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kPack =
    4;  // elements that a thread adds at a time, wherever they lie: the order of a sum does not depend on alignment

template <bool Aligned>
__device__ void load_four(const float* x, int64_t i, int64_t n, float (&v)[kPack]) {
  if (Aligned && i + kPack <= n) return load_pack(x + i, v);
#pragma unroll
  for (int j = 0; j < kPack; ++j) v[j] = i + j < n ? x[i + j] : 0.0f;
}

// total += the sum of x·y, or of x² where Square.
template <bool Aligned, bool Square>
__global__ void __launch_bounds__(kThreads, 4)
    sum_kernel(const float* x, const float* y, int64_t n, PartialSums* partial, double* total) {
  constexpr int kAtOnce = Square ? 8 : 4;  // packs of each vector that a thread has on their way
  double sum = 0;
  const int64_t stride = int64_t{gridDim.x} * kThreads * kPack;
  for (int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kPack; i < n; i += kAtOnce * stride) {
    float a[kAtOnce][kPack], b[kAtOnce][kPack];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      load_four<Aligned>(x, i + k * stride, n, a[k]);
      if constexpr (!Square) load_four<Aligned>(y, i + k * stride, n, b[k]);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
#pragma unroll
      for (int j = 0; j < kPack; ++j)
        sum += static_cast<double>(a[k][j]) * static_cast<double>(Square ? a[k][j] : b[k][j]);
    }
  }
  sum = block_sum<kThreads>(sum);

  __shared__ bool last;
  if (threadIdx.x == 0) {
    partial->of_block[blockIdx.x] = sum;
    __threadfence();
    last = atomicAdd(&partial->ended, 1u) + 1 == gridDim.x;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  sum = 0;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += kThreads) sum += __ldcg(&partial->of_block[i]);
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x != 0) return;
  total[0] += sum;
  partial->ended = 0;
}

template <bool Square>
void sum_products(cudaStream_t stream, Tensor x, Tensor y, Tensor total, PartialSums* partial) {
  x = flat(x);
  y = flat(y);
  if (x.cols == 0) return;
  const int64_t blocks = std::min(kSumBlocks, int64_t{grid_of(x.cols, kThreads * kPack)});
  const bool aligned = (reinterpret_cast<uintptr_t>(x.data) | reinterpret_cast<uintptr_t>(y.data)) % 16 == 0;
  launch(Square ? "sum_squares" : "dot", aligned ? sum_kernel<true, Square> : sum_kernel<false, Square>,
         grid_of(blocks), kThreads, 0, stream, x.as<float>(), y.as<float>(), x.cols, partial, total.as<double>());
}

__global__ void clip_kernel(const double* sum, double max_norm, float* factor) {
  const double norm = sqrt(sum[0]);
  if (!(norm < INFINITY) || isnan(factor[0])) {
    factor[0] = NAN;
  } else {
    factor[0] = max_norm <= 0 ? 1.0f : static_cast<float>(fmin(1.0, max_norm / (norm + 1e-6)));
  }
}

struct AdamWConstants {
  float decay, step_size, root2;  // 1 - lr·wd, lr/(1-β1ᵗ), √(1-β2ᵗ)
  float rest1, beta2, rest2, eps;
};

template <int N>
__global__ void adamw_kernel(AdamWConstants c, const float* factor, const float* g, float* p, float* m, float* v,
                             int64_t n) {
  const int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (i >= n) return;
  const float clip = factor[0];
  float gs[N], ps[N], ms[N], vs[N];
  load_pack(g + i, gs);
  load_pack(p + i, ps);
  load_pack(m + i, ms);
  load_pack(v + i, vs);
  if (!(fabsf(clip) < INFINITY)) return;
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float gradient = gs[j] * clip;
    ms[j] = ms[j] + (gradient - ms[j]) * c.rest1;
    vs[j] = vs[j] * c.beta2 + gradient * gradient * c.rest2;
    ps[j] = ps[j] * c.decay - c.step_size * ms[j] / (sqrtf(vs[j]) / c.root2 + c.eps);
  }
  store_pack(p + i, ps);
  store_pack(m + i, ms);
  store_pack(v + i, vs);
}

}  // namespace

void CudaBackend::do_sum_squares(Tensor x, Tensor sum) { sum_products<true>(stream_, x, x, sum, partial_sums_); }
void CudaBackend::do_dot(Tensor x, Tensor y, Tensor sum) { sum_products<false>(stream_, x, y, sum, partial_sums_); }

void CudaBackend::do_clip_factor(Tensor sum, float max_norm, Tensor factor) {
  launch("clip_factor", clip_kernel, 1, 1, 0, stream_, sum.as<double>(), static_cast<double>(max_norm),
         factor.as<float>());
}

void CudaBackend::do_adamw(const AdamW& s, Tensor factor, Tensor g, Tensor p, Tensor m, Tensor v) {
  const double t = static_cast<double>(s.step), lr = s.learning_rate;
  const AdamWConstants c{.decay = static_cast<float>(1 - lr * s.weight_decay),
                         .step_size = static_cast<float>(lr / (1 - std::pow(s.beta1, t))),
                         .root2 = static_cast<float>(std::sqrt(1 - std::pow(s.beta2, t))),
                         .rest1 = static_cast<float>(1 - s.beta1),
                         .beta2 = static_cast<float>(s.beta2),
                         .rest2 = static_cast<float>(1 - s.beta2),
                         .eps = static_cast<float>(s.eps)};
  g = flat(g), p = flat(p), m = flat(m), v = flat(v);
  const auto update = [&](auto n, int64_t begin, int64_t count) {
    const auto from = [&](Tensor x) { return x.as<float>() + begin; };
    launch("adamw", adamw_kernel<n()>, grid_of(count / n(), kThreads), kThreads, 0, stream_, c, factor.as<float>(),
           from(g), from(p), from(m), from(v), count);
  };
  // Packs as far as they go, then what is left of a buffer whose length no pack divides.
  const int64_t whole = p.cols / 4 * 4;
  const bool packs = ((reinterpret_cast<uintptr_t>(g.data) | reinterpret_cast<uintptr_t>(p.data) |
                       reinterpret_cast<uintptr_t>(m.data) | reinterpret_cast<uintptr_t>(v.data)) %
                      16) == 0;
  if (packs) update(std::integral_constant<int, 4>{}, 0, whole);
  update(std::integral_constant<int, 1>{}, packs ? whole : 0, packs ? p.cols - whole : p.cols);
}

}  // namespace drover::cuda
