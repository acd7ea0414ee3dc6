#include "kernels/cuda/device.h"
#include "kernels/nccl/rank_sum.h"

namespace drover::nccl {

namespace {

constexpr int kThreads = 256;

__device__ float widened(float v) { return v; }
__device__ float widened(bf16 v) { return static_cast<float>(v); }
__device__ double widened(double v) { return v; }

template <typename T>
__global__ void rank_sum_kernel(const T* own, const T* inbox, int64_t stride, int rank, int size, int64_t count,
                                T* out) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  auto sum = widened(rank == 0 ? own[i] : inbox[i]);
  for (int r = 1; r < size; ++r) sum += widened(r == rank ? own[i] : inbox[(r < rank ? r : r - 1) * stride + i]);
  out[i] = T(sum);
}

template <typename T>
void launch_sum(const RankSum& s, void* out, cudaStream_t stream) {
  cuda::launch("rank_sum", rank_sum_kernel<T>, cuda::grid_of(s.count, kThreads), kThreads, 0, stream,
               static_cast<const T*>(s.own), static_cast<const T*>(s.inbox), s.stride, s.rank, s.size, s.count,
               static_cast<T*>(out));
}

}  // namespace

void rank_sum(const RankSum& s, void* out, cudaStream_t stream) {
  switch (s.dtype) {
    case DType::bf16: return launch_sum<bf16>(s, out, stream);
    case DType::f32: return launch_sum<float>(s, out, stream);
    case DType::f64: return launch_sum<double>(s, out, stream);
    default: require(false, "a sum is of bf16, f32 or f64");
  }
}

}  // namespace drover::nccl
