// Pointwise ops on rows. Arithmetic is fp32, rounded once; a value does not depend on where it stands or how wide the
// packs are.
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/walk.h"

namespace drover::cuda {

namespace {

template <int N, typename X, typename Y>
__global__ void add_kernel(Walk w, const X* x, int64_t x_pitch, Y* y, int64_t y_pitch) {
  const Spot at = spot_of(w);
  if (!at.inside) return;
  Y* out = y + at.row * y_pitch + at.pack * N;
  float v[N], old[N];
  load_pack(x + at.row * x_pitch + at.pack * N, v);
  load_pack(out, old);
#pragma unroll
  for (int j = 0; j < N; ++j) old[j] += v[j];
  store_pack(out, old);
}

__global__ void add_double_kernel(Walk w, const double* x, int64_t x_pitch, double* y, int64_t y_pitch) {
  const Spot at = spot_of(w);
  if (at.inside) y[at.row * y_pitch + at.pack] += x[at.row * x_pitch + at.pack];
}

template <int N, typename X>
__global__ void scale_rows_kernel(Walk w, const float* weights, X* x, int64_t pitch) {
  const Spot at = spot_of(w);
  if (!at.inside) return;
  X* out = x + at.row * pitch + at.pack * N;
  const float factor = weights[at.row];
  float v[N];
  load_pack(out, v);
#pragma unroll
  for (int j = 0; j < N; ++j) v[j] *= factor;
  store_pack(out, v);
}

// A pack of N pairs (i, i + half) of a head: (a, b) becomes (a·cos - b·sin, b·cos + a·sin). `packs` threads turn a row.
template <int N, typename X>
__global__ void rope_kernel(unsigned count, unsigned packs, X* x, int64_t pitch, const int32_t* positions,
                            const float* cosine, int64_t cosine_pitch, const float* sine, int64_t sine_pitch, int half,
                            float sign) {
  const unsigned at = blockIdx.x * kWalkThreads + threadIdx.x;
  if (at >= count) return;
  const unsigned row = at / packs, pack = at - row * packs, packs_of_head = static_cast<unsigned>(half) / N,
                 head = pack / packs_of_head;
  const int i = static_cast<int>(pack - head * packs_of_head) * N;
  X* first = x + row * pitch + head * 2 * half + i;
  Packed<N, X> low, high;
  load_packed(first, low);
  load_packed(first + half, high);
  const int64_t position = positions[row];
  float a[N], b[N], c[N], s[N];
  load_pack(cosine + position * cosine_pitch + i, c);
  load_pack(sine + position * sine_pitch + i, s);
  unpack(low, a);
  unpack(high, b);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float turned = a[j] * c[j] - b[j] * (sign * s[j]);
    b[j] = b[j] * c[j] + a[j] * (sign * s[j]);
    a[j] = turned;
  }
  store_pack(first, a);
  store_pack(first + half, b);
}

__device__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <int N, typename T>
__global__ void swiglu_kernel(Walk w, const T* gate_up, int64_t gate_up_pitch, int64_t f, T* y, int64_t y_pitch) {
  const Spot at = spot_of(w);
  if (!at.inside) return;
  const T* in = gate_up + at.row * gate_up_pitch + at.pack * N;
  float gate[N], up[N];
  load_pack(in, gate);
  load_pack(in + f, up);
#pragma unroll
  for (int j = 0; j < N; ++j) gate[j] = gate[j] * sigmoid(gate[j]) * up[j];
  store_pack(y + at.row * y_pitch + at.pack * N, gate);
}

// dgate = dy·up·silu'(gate), silu'(g) = s·(1 + g·(1 - s)), s = sigmoid(g);  dup = dy·silu(gate). `d` may be gate_up
// itself, and y dy.
template <int N, typename T>
__global__ void swiglu_backward_kernel(Walk w, const T* dy, int64_t dy_pitch, const T* gate_up, int64_t gate_up_pitch,
                                       int64_t f, T* d, int64_t d_pitch, T* y, int64_t y_pitch) {
  const Spot at = spot_of(w);
  if (!at.inside) return;
  const T* in = gate_up + at.row * gate_up_pitch + at.pack * N;
  T* out = d + at.row * d_pitch + at.pack * N;
  float gate[N], up[N], gradient[N];
  load_pack(in, gate);
  load_pack(in + f, up);
  load_pack(dy + at.row * dy_pitch + at.pack * N, gradient);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float s = sigmoid(gate[j]), silu = gate[j] * s, again = silu * up[j];
    gate[j] = gradient[j] * up[j] * (s * (1.0f + gate[j] * (1.0f - s)));
    up[j] = gradient[j] * silu;
    gradient[j] = again;
  }
  store_pack(out, gate);
  store_pack(out + f, up);
  if (y != nullptr) store_pack(y + at.row * y_pitch + at.pack * N, gradient);
}

}  // namespace

void CudaBackend::do_add(Tensor x, Tensor y) {
  flatten(x, y);
  if (x.dtype == DType::f64) {
    const Walk w = walk(x.rows, x.cols);
    return launch("add", add_double_kernel, w.grid, kWalkThreads, 0, stream_, w, x.as<double>(), x.pitch,
                  y.as<double>(), y.pitch);
  }
  with_width({x, y}, [&](auto n) {
    with_type(x, [&](const auto* from) {
      with_type(y, [&](auto* to) {
        const Walk w = walk(x.rows, x.cols / n());
        launch("add", add_kernel<n(), element<decltype(from)>, element<decltype(to)>>, w.grid, kWalkThreads, 0, stream_,
               w, from, x.pitch, to, y.pitch);
      });
    });
  });
}

void CudaBackend::do_scale_rows(Tensor weights, Tensor x) {
  with_width({x}, [&](auto n) {
    with_type(x, [&](auto* data) {
      const Walk w = walk(x.rows, x.cols / n());
      launch("scale_rows", scale_rows_kernel<n(), element<decltype(data)>>, w.grid, kWalkThreads, 0, stream_, w,
             as_row(weights).as<float>(), data, x.pitch);
    });
  });
}

void CudaBackend::do_rope(Tensor x, Tensor positions, Tensor cosine, Tensor sine, bool inverse) {
  const int64_t half = cosine.cols;
  require(half > 0 && x.cols % (2 * half) == 0 && x.cols <= 0x7fffffff, "rope turns whole heads");
  with_width({x.columns(0, half), cosine, sine}, [&](auto n) {
    with_type(x, [&](auto* data) {
      const int64_t packs = x.cols / (2 * n()), count = x.rows * packs;
      require(count <= 0x7fffffff, "rope turns at most 2^31 packs");
      launch("rope", rope_kernel<n(), element<decltype(data)>>, grid_of(count, kWalkThreads), kWalkThreads, 0, stream_,
             static_cast<unsigned>(count), static_cast<unsigned>(packs), data, x.pitch, as_row(positions).as<int32_t>(),
             cosine.as<float>(), cosine.pitch, sine.as<float>(), sine.pitch, static_cast<int>(half),
             inverse ? -1.0f : 1.0f);
    });
  });
}

void CudaBackend::do_swiglu(Tensor gate_up, Tensor y) {
  const int64_t f = y.cols;
  with_width({gate_up.columns(0, f), y}, [&](auto n) {
    with_type(y, [&](auto* out) {
      using T = element<decltype(out)>;
      const Walk w = walk(y.rows, f / n());
      launch("swiglu", swiglu_kernel<n(), T>, w.grid, kWalkThreads, 0, stream_, w, gate_up.as<T>(), gate_up.pitch, f,
             out, y.pitch);
    });
  });
}

void CudaBackend::do_swiglu_backward(Tensor dy, Tensor gate_up, Tensor d_gate_up, Tensor y) {
  const int64_t f = dy.cols;
  with_width({dy, gate_up.columns(0, f), d_gate_up.columns(0, f), y}, [&](auto n) {
    with_type(dy, [&](const auto* gradient) {
      using T = element<decltype(gradient)>;
      const Walk w = walk(dy.rows, f / n());
      launch("swiglu_backward", swiglu_backward_kernel<n(), T>, w.grid, kWalkThreads, 0, stream_, w, gradient, dy.pitch,
             gate_up.as<T>(), gate_up.pitch, f, d_gate_up.as<T>(), d_gate_up.pitch, y.empty() ? nullptr : y.as<T>(),
             y.pitch);
    });
  });
}

}  // namespace drover::cuda
