// Softmax over a vocabulary seen in blocks, and its gradient. A row is read once: every thread keeps a running maximum
// and a sum relative to it, and a block of threads joins its rows' in a fixed order. Source: Milakov & Gimelshein 2018
// (online softmax).
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/walk.h"

namespace drover::cuda {

namespace {

constexpr int kThreads = 512;
constexpr int kMergeThreads = 128;
constexpr int kTogether = 4;  // packs in flight

struct RunningSum {
  float max = -INFINITY;  // NaN is skipped here and comes back through the sum
  float sum = 0;          // Σ exp(v - max)

  template <int N>
  __device__ void add(const float (&v)[N]) {
    float high = v[0];
#pragma unroll
    for (int j = 1; j < N; ++j) high = fmaxf(high, v[j]);
    if (high > max) {
      sum *= expf(max - high);
      max = high;
    }
    const float shift = max == -INFINITY ? 0.0f : max;
#pragma unroll
    for (int j = 0; j < N; ++j) sum += expf(v[j] - shift);
  }
};

__global__ void start_kernel(int64_t rows, float* statistics, int64_t pitch) {
  const int64_t row = int64_t{blockIdx.x} * kMergeThreads + threadIdx.x;
  if (row >= rows) return;
  statistics[row * pitch] = -INFINITY;
  statistics[row * pitch + 1] = statistics[row * pitch + 2] = 0;
}

template <int N>
__global__ void fold_kernel(const float* logits, int64_t pitch, const int32_t* labels, int64_t begin, int valid,
                            float* statistics, int64_t statistics_pitch) {
  const float* row = logits + blockIdx.x * pitch;
  float* s = statistics + blockIdx.x * statistics_pitch;
  const float old_max = s[0];
  RunningSum running;
  constexpr int kStep = kThreads * N;
  int i = static_cast<int>(threadIdx.x) * N;
  for (; i + (kTogether - 1) * kStep + N <= valid; i += kTogether * kStep) {
    float v[kTogether * N];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) load_pack(row + i + k * kStep, reinterpret_cast<float(&)[N]>(v[k * N]));
    running.add(v);
  }
  for (; i + N <= valid; i += kStep) {
    float v[N];
    load_pack(row + i, v);
    running.add(v);
  }
  if (const int rest = valid / N * N + static_cast<int>(threadIdx.x); N > 1 && rest < valid) {
    const float v[1] = {row[rest]};
    running.add(v);
  }
  const float max = fmaxf(old_max, block_max<kThreads>(running.max));
  const double sum = block_sum<kThreads>(static_cast<double>(running.sum * expf(running.max - max)));
  if (threadIdx.x != 0) return;
  const float kept = s[1] == 0 ? 0.0f : s[1] * expf(old_max - max);
  s[0] = max;
  s[1] = static_cast<float>(static_cast<double>(kept) + sum);
  const int64_t label = labels[blockIdx.x] - begin;
  if (label >= 0 && label < valid) s[2] += row[label];
}

// One thread a row: `parts` are few.
__global__ void merge_kernel(int64_t rows, int64_t parts, const float* statistics, int64_t pitch, float* lse,
                             float* logprob) {
  const int64_t row = int64_t{blockIdx.x} * kMergeThreads + threadIdx.x;
  if (row >= rows) return;
  float max = -INFINITY, label = 0;
  for (int64_t k = 0; k < parts; ++k) max = fmaxf(max, statistics[(k * rows + row) * pitch]);
  double sum = 0;
  for (int64_t k = 0; k < parts; ++k) {
    const float* s = statistics + (k * rows + row) * pitch;
    if (s[1] != 0) sum += static_cast<double>(s[1]) * exp(static_cast<double>(s[0]) - static_cast<double>(max));
    label += s[2];
  }
  const double log_sum = static_cast<double>(max) + log(sum);
  lse[row] = static_cast<float>(log_sum);
  logprob[row] = static_cast<float>(static_cast<double>(label) - log_sum);
}

// d = exp(l - lse) - [column is the label], 0 from column `valid` on. `d` may be the logits.
template <int N, typename D>
__global__ void backward_kernel(Walk w, const float* logits, int64_t pitch, const int32_t* labels, int64_t begin,
                                int64_t valid, const float* lse, D* d, int64_t d_pitch) {
  const Spot at = spot_of(w);
  if (!at.inside) return;
  const int64_t column = at.pack * N, label = labels[at.row] - begin - column;
  const float shift = lse[at.row];
  float v[N];
  load_pack(logits + at.row * pitch + column, v);
#pragma unroll
  for (int j = 0; j < N; ++j) v[j] = column + j < valid ? expf(v[j] - shift) - (label == j ? 1.0f : 0.0f) : 0.0f;
  store_pack(d + at.row * d_pitch + column, v);
}

}  // namespace

void CudaBackend::do_start_statistics(Tensor statistics) {
  launch("start_statistics", start_kernel, grid_of(statistics.rows, kMergeThreads), kMergeThreads, 0, stream_,
         statistics.rows, statistics.as<float>(), statistics.pitch);
}

void CudaBackend::do_fold_statistics(Tensor logits, Tensor labels, int64_t begin, int64_t valid, Tensor statistics) {
  require(valid <= logits.cols && logits.cols < 1 << 30, "a block of logits holds its valid columns");
  if (valid == 0) return;
  const auto by = [&](auto n) {
    launch("fold_statistics", fold_kernel<n()>, grid_of(logits.rows), kThreads, 0, stream_, logits.as<float>(),
           logits.pitch, as_row(labels).as<int32_t>(), begin, static_cast<int>(valid), statistics.as<float>(),
           statistics.pitch);
  };
  const Tensor whole = logits.columns(0, valid / 4 * 4);
  if (pack_width({&whole, 1}) == 4) return by(std::integral_constant<int, 4>{});
  by(std::integral_constant<int, 1>{});
}

void CudaBackend::do_merge_statistics(Tensor parts, Tensor lse, Tensor logprob) {
  if (lse.rows == 0) return;
  launch("merge_statistics", merge_kernel, grid_of(lse.rows, kMergeThreads), kMergeThreads, 0, stream_, lse.rows,
         parts.rows / lse.rows, parts.as<float>(), parts.pitch, as_row(lse).as<float>(), as_row(logprob).as<float>());
}

void CudaBackend::do_cross_entropy_backward(Tensor logits, Tensor labels, int64_t begin, int64_t valid, Tensor lse,
                                            Tensor d) {
  with_width({logits, d}, [&](auto n) {
    with_type(d, [&](auto* to) {
      const Walk w = walk(logits.rows, logits.cols / n());
      launch("cross_entropy_backward", backward_kernel<n(), element<decltype(to)>>, w.grid, kWalkThreads, 0, stream_, w,
             logits.as<float>(), logits.pitch, as_row(labels).as<int32_t>(), begin, valid, as_row(lse).as<float>(), to,
             d.pitch);
    });
  });
}

}  // namespace drover::cuda
